//! Knows the hub's error codes that decide something. Pure.
//!
//! Their meaning: <https://learn.microsoft.com/rest/api/iothub/common-error-codes>. All names and numbers:
//! <https://learn.microsoft.com/dotnet/api/microsoft.azure.devices.common.exceptions.errorcode>.

/// The error code of an answer. An answer with a code comes from the hub itself, not from a proxy in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 400004: the body of the request is not valid.
    ArgumentInvalid,
    /// 400103.
    InvalidContentEncodingOrType,
    /// 403002: the daily quota is used up.
    QuotaExceeded,
    /// 413001.
    MessageTooLarge,
    /// Any other code. It decides nothing.
    Other,
}

impl ErrorCode {
    /// The code of an answer. It can be a number in the body, a name in the header `iothub-errorcode`, or a name in
    /// the body's text (`ErrorCode:NAME;…`).
    #[must_use]
    pub fn of_answer(number: Option<u64>, header: Option<&str>, text: &str) -> Option<Self> {
        let named = text.strip_prefix("ErrorCode:").map(|rest| rest.split(';').next().unwrap_or_default());
        number.map(Self::of_number).or(header.or(named).map(Self::of_name))
    }

    /// Whether it concerns the message that was sent. All others (400000 `GenericBadRequest`, 400001
    /// `InvalidProtocolVersion`, 400003 `InvalidOperation`, …) may concern every request.
    #[must_use]
    pub fn concerns_message(self) -> bool {
        match self {
            Self::ArgumentInvalid | Self::InvalidContentEncodingOrType | Self::MessageTooLarge => true,
            Self::QuotaExceeded | Self::Other => false,
        }
    }

    fn of_number(number: u64) -> Self {
        match number {
            400_004 => Self::ArgumentInvalid,
            400_103 => Self::InvalidContentEncodingOrType,
            403_002 => Self::QuotaExceeded,
            413_001 => Self::MessageTooLarge,
            _ => Self::Other,
        }
    }

    fn of_name(name: &str) -> Self {
        match name.trim() {
            "ArgumentInvalid" => Self::ArgumentInvalid,
            "InvalidContentEncodingOrType" => Self::InvalidContentEncodingOrType,
            "IotHubQuotaExceeded" => Self::QuotaExceeded,
            "MessageTooLarge" => Self::MessageTooLarge,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_wherever_it_stands() {
        let invalid = Some(ErrorCode::ArgumentInvalid);
        assert_eq!(ErrorCode::of_answer(Some(400_004), None, ""), invalid);
        assert_eq!(ErrorCode::of_answer(None, Some("ArgumentInvalid"), "no"), invalid);
        assert_eq!(ErrorCode::of_answer(None, None, "ErrorCode:ArgumentInvalid;no"), invalid);
        assert_eq!(ErrorCode::of_answer(None, None, "ErrorCode:ArgumentInvalid"), invalid);
        let number_counts = ErrorCode::of_answer(Some(400_001), Some("ArgumentInvalid"), "ErrorCode:ArgumentInvalid;");
        assert_eq!(number_counts, Some(ErrorCode::Other));
    }

    #[test]
    fn what_bears_no_code_is_not_the_hubs() {
        for text in ["", "Bad Request", "<html></html>", "the ErrorCode:ArgumentInvalid;"] {
            assert_eq!(ErrorCode::of_answer(None, None, text), None, "{text}");
        }
    }

    #[test]
    fn few_codes_are_about_the_message() {
        for number in [400_004, 400_103, 413_001] {
            assert!(ErrorCode::of_number(number).concerns_message(), "{number}");
        }
        for number in [0, 400, 400_000, 400_001, 400_003, 400_006, 400_027, 403_002, 500_001] {
            assert!(!ErrorCode::of_number(number).concerns_message(), "{number}");
        }
    }
}
