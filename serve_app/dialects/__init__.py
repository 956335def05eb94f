"""One file a wire protocol: frames in, facts out; events in, frames out. Pure."""
