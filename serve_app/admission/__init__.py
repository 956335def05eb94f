"""Whom the server lets in, and what it leaves out for those inside when that was too many."""
