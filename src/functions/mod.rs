//! One thin file for each function folder of the app: the host's envelope in, one call, an envelope out.
