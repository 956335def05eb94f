"""Everything that holds a connection open: WebSockets, Socket.IO, TCP."""
