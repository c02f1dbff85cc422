//! The exit codes, which mean the same for all commands. docs/reference/cli.md has the table.

use iothub_connector::config::Problems;

/// Something was found, failed, or was done in part.
pub const FOUND: u8 = 1;
/// The command line or the settings are wrong. clap uses it, too.
pub const USAGE: u8 = 2;
/// The code that shells use for a command that Ctrl-C has ended.
pub const INTERRUPTED: u8 = 130;

/// The command line or the settings are wrong. The text says what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Makes an error of reading options and settings one that ends the command with [`USAGE`].
pub fn usage(error: anyhow::Error) -> anyhow::Error {
    if code(&error) == USAGE { error } else { Usage(format!("{error:#}")).into() }
}

pub fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Problems>() || error.is::<Usage>() { USAGE } else { FOUND }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn an_error_of_the_command_line_or_the_settings_has_its_own_code_whatever_is_said_around_it() {
        let wrong = || anyhow::Error::from(Usage("no hub".into()));
        assert_eq!(code(&Err::<(), _>(wrong()).context("site 1").unwrap_err()), USAGE);
        assert_eq!(code(&Problems::default().into()), USAGE);
        assert_eq!(code(&anyhow!("the hub is away")), FOUND);
        let told = usage(anyhow!("no key").context("file"));
        assert_eq!((code(&told), told.to_string()), (USAGE, "file: no key".to_owned()));
        assert!(usage(Problems::default().into()).is::<Problems>());
    }
}
