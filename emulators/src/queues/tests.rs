//! What every queue does, wherever it is. The account is that of a small service inside of the test.
