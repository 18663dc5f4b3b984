//! The cases. Each gets the world with every device blocked, and leaves it so.
