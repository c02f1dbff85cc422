//! A failure as documents keep it.

use serde::{Deserialize, Serialize};

use super::kind::Kind;

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fault {
    /// A short name, such as `not_found`.
    pub kind: Kind,
    /// A sentence for the user.
    pub text: String,
}
