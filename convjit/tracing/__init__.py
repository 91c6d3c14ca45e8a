"""How a call becomes a tape: what a user's function does with arrays, recorded on a copy of all state that it reads."""
