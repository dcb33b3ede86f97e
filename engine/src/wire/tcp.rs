//! TCP headers (RFC 9293).
