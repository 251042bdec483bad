"""Stream bytes -> TLS records -> messages -> events."""
