//! UDP headers (RFC 768).
