"""What a client talks to: sockets, REST, sessions, and the way from them to the models."""
