//! The command line of the emulators: one subcommand each, one JSON line on standard output when ready.
