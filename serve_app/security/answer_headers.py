"""What every answer tells browsers, unless it says otherwise. Imports nothing."""

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""CORS is not affected by Cross-Origin-Resource-Policy."""

ONLY_IF_TRUSTWORTHY = "Cross-Origin-Opener-Policy"
"""Without TLS and from another machine browsers ignore it, and complain of that."""
