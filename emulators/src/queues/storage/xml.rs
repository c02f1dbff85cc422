//! The XML bodies of requests and answers.
//! <https://learn.microsoft.com/rest/api/storageservices/get-messages>

use quick_xml::{de, escape::escape};
use serde::Deserialize;

/// A message in the service's answer to a take or a peek.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct QueueMessage {
    #[serde(rename = "MessageId")]
    pub id: String,
    #[serde(rename = "InsertionTime")]
    pub inserted: String,
    #[serde(rename = "ExpirationTime")]
    pub expires: String,
    #[serde(rename = "PopReceipt")]
    pub receipt: Option<String>,
    #[serde(rename = "TimeNextVisible")]
    pub next_visible: Option<String>,
    #[serde(rename = "DequeueCount")]
    pub dequeue_count: u64,
    #[serde(rename = "MessageText", default)]
    pub text: String,
}

#[derive(Deserialize)]
struct QueueMessagesList {
    #[serde(rename = "QueueMessage", default)]
    messages: Vec<QueueMessage>,
}

/// The request body that puts a message.
pub fn message(text: &str) -> String {
    // A parser would turn a carriage return into a line feed.
    let text = escape(text).replace('\r', "&#13;");
    format!("<QueueMessage><MessageText>{text}</MessageText></QueueMessage>")
}

/// # Errors
/// Says what is wrong with the body.
pub fn messages(body: &str) -> Result<Vec<QueueMessage>, String> {
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    de::from_str(body).map(|list: QueueMessagesList| list.messages).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the service's documentation, without its additional parts.
    const EXAMPLE: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>
<QueueMessagesList>
  <QueueMessage>
    <MessageId>5974b586-0df3-4e2d-ad0c-18e3892bfca2</MessageId>
    <InsertionTime>Fri, 09 Oct 2009 21:04:30 GMT</InsertionTime>
    <ExpirationTime>Fri, 16 Oct 2009 21:04:30 GMT</ExpirationTime>
    <PopReceipt>YzQ4Yzg1MDIGM0MDFiZDAwYzEw</PopReceipt>
    <TimeNextVisible>Fri, 09 Oct 2009 23:29:20 GMT</TimeNextVisible>
    <DequeueCount>1</DequeueCount>
    <MessageText>PHRlc3Q+dGhpcyBpcyBhIHRlc3QgbWVzc2FnZTwvdGVzdD4=</MessageText>
  </QueueMessage>
</QueueMessagesList>";

    #[test]
    fn the_services_example_is_read() {
        let list = messages(EXAMPLE).unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].receipt.as_deref(), Some("YzQ4Yzg1MDIGM0MDFiZDAwYzEw"));
        assert_eq!((list[0].dequeue_count, &list[0].inserted[..]), (1, "Fri, 09 Oct 2009 21:04:30 GMT"));
        assert_eq!(list[0].text, "PHRlc3Q+dGhpcyBpcyBhIHRlc3QgbWVzc2FnZTwvdGVzdD4=");
    }

    #[test]
    fn a_queue_may_have_no_message_and_a_message_no_text() {
        assert_eq!(messages("<?xml version=\"1.0\"?><QueueMessagesList />"), Ok(Vec::new()));
        let body = EXAMPLE.replace("PHRlc3Q+dGhpcyBpcyBhIHRlc3QgbWVzc2FnZTwvdGVzdD4=", "");
        assert_eq!(messages(&body).unwrap()[0].text, "");
        messages("<html>").unwrap_err();
    }

    #[test]
    fn texts_survive_the_way_there_and_back() {
        for text in ["", "{\"a\":\"<&>'\"}", "  spaces \t\r\n", "ü €", "]]>"] {
            let there = message(text).replace("<QueueMessage>", "").replace("</QueueMessage>", "");
            let body =
                EXAMPLE.replace("<MessageText>PHRlc3Q+dGhpcyBpcyBhIHRlc3QgbWVzc2FnZTwvdGVzdD4=</MessageText>", &there);
            assert_eq!(messages(&body).unwrap()[0].text, text);
        }
    }
}
