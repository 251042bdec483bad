"""Names that want to break out of comments, lines and terminals."""

from __future__ import annotations

HOSTILE = (
    'a"; drop; comment "',
    "a\n}\ndelete table inet other\n",
    "a\r\n-A INPUT -j DROP\nCOMMIT\n",
    "\x1b[2J\x1b]0;owned\x07",
    "a' --comment ' -j ACCEPT",
    "$(reboot) `reboot` ; | & \\",
    "\u202e\u2028\u0085\x00",
    "# x" * 8000,
    "é" * 5100 + "\n-A INPUT -j DROP",
)
