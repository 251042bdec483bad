"""Facts of the wire: headers, fields, link types, IANA registries. No behaviour; imports nothing of ours."""
