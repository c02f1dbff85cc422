use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::rapidm2m::gate::Limits;

/// How a server treats a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connections {
    Kept,
    /// It answers once. Then it reads the next request and closes.
    ClosedAtTheSecondRequest,
}

/// A client, and a server that answers each request line as `answer` says.
async fn client(connections: Connections, answer: fn(&str) -> (u16, String)) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = Url::parse(&format!("http://user:secret@{}/api/1/", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, connections, answer));
        }
    });
    let limits = Limits { requests_per_second: 1_000, concurrency: 16 };
    Client::new(base, &"eDp5".to_owned().into(), HttpClient::default(), Gate::new(limits, String::new()))
}

async fn serve(mut stream: TcpStream, connections: Connections, answer: fn(&str) -> (u16, String)) {
    let (mut answered, mut read) = (0, Vec::new());
    loop {
        let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => read.extend(&buffer[..count]),
            }
            continue;
        };
        if connections == Connections::ClosedAtTheSecondRequest && answered > 0 {
            return;
        }
        let head = String::from_utf8(read.drain(..end + 4).collect()).unwrap();
        let (status, body) = answer(head.split(' ').nth(1).unwrap());
        let location = if status == 302 { "location: https://u:p@portal.example/login?token=x\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status} X\r\n{location}content-length: {}\r\n\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
        answered += 1;
    }
}

async fn ask(client: &Client, channels: &[String]) -> Result<Answer, FetchError> {
    let query = RowsQuery { customer: "c", site: "s", histdata: 0, channels, range: Range::Youngest };
    client.rows(&query, MAX_BODY, Limit::of(Duration::from_secs(60))).await
}

#[tokio::test]
async fn a_connection_that_closes_before_the_answer_begins_costs_a_second_try() {
    let client = client(Connections::ClosedAtTheSecondRequest, |_| (200, "[]".into())).await;
    for run in 0..20 {
        let answer = ask(&client, &["ch0".into()]).await;
        assert!(answer.is_ok(), "run {run}: {answer:?}");
    }
}

#[tokio::test]
async fn a_redirect_tells_its_target_and_no_secret() {
    let client = client(Connections::Kept, |_| (302, String::new())).await;
    let error = ask(&client, &["ch0".into()]).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (Kind::HttpStatus, Some(302)));
    let text = error.to_string();
    assert!(text.contains("to https://portal.example/login: set M2MBackendURL"), "{text}");
}

/// A server behind a proxy that takes URLs of 2,048 bytes. Its row of each channel has the channel's number.
fn behind_a_proxy(path: &str) -> (u16, String) {
    if path.len() > 2_048 {
        return (404, "not found".into());
    }
    let query = percent_encoding::percent_decode_str(path.split_once("json=").unwrap().1).decode_utf8_lossy();
    let query: serde_json::Value = serde_json::from_str(&query).unwrap();
    let numbers: Vec<_> =
        query["select"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()[2..].to_owned()).collect();
    (200, format!("[[\"2017012\",{}]]", numbers.join(",")))
}

#[tokio::test]
async fn a_long_select_is_split_and_joined() {
    let client = client(Connections::Kept, behind_a_proxy).await;
    let channels: Vec<_> = (0..300).map(|number| format!("ch{number}")).collect();
    let answer = ask(&client, &channels).await.unwrap();
    let rows = Rows::read(answer.body, channels.len()).unwrap();
    let values: Vec<_> = rows.values(&rows.rows[0]).map(|value| value.unwrap().parse::<usize>().unwrap()).collect();
    assert_eq!(values, (0..300).collect::<Vec<_>>());
    assert_eq!((rows.rows.len(), rows.flaws.count), (1, 0));
}

#[test]
fn ids_are_one_path_segment_whatever_is_in_them() {
    let channels = ["ch0".to_owned()];
    let query = RowsQuery {
        customer: "th.drones@gmail.com",
        site: "Well 7/ä \"x\"?#",
        histdata: 3,
        channels: &channels,
        range: Range::Youngest,
    };
    assert_eq!(
        Client::rows_path(&query),
        "customers/th.drones%40gmail.com/sites/Well%207%2F%C3%A4%20%22x%22%3F%23/histdata3/youngest"
    );
}

#[test]
fn the_status_is_kept_whatever_the_body_is() {
    assert_eq!(error_text(br#"{"err":"no such site"}"#), "no such site");
    assert_eq!(error_text(b"<html>\n  Bad   Gateway</html>"), "<html> Bad Gateway</html>");
    let error = classify(StatusCode::NOT_FOUND, None, "no such site".into());
    assert_eq!((error.kind().as_str(), error.status(), error.is_permanent()), ("not_found", Some(404), true));
    let error = classify(StatusCode::SERVICE_UNAVAILABLE, Some(Duration::from_secs(7)), String::new());
    assert_eq!((error.kind().as_str(), error.retry_after()), ("rate_limited", Some(Duration::from_secs(7))));
    let error = classify(StatusCode::FOUND, None, String::new());
    assert_eq!((error.kind().as_str(), error.status()), ("http_status", Some(302)));
}
