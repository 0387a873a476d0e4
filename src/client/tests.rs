//! The client against a server that answers as told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use super::*;
use crate::error::Kind;

/// A server that answers the requests that come with these, in order (`None`: it hangs up), and gives what was asked.
fn scripted(answers: Vec<Option<(u16, &'static str)>>) -> (Client, std::thread::JoinHandle<Vec<(String, Value)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            reader.read_line(&mut head).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let target = head.split(' ').take(2).collect::<Vec<_>>().join(" ");
            asked.push((target, serde_json::from_slice(&body).unwrap_or(Value::Null)));
            if let Some((status, body)) = answer {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                stream.write_all((head + body).as_bytes()).unwrap();
            }
        }
        asked
    };
    let settings = Settings { retry_for_ms: Some(60_000), ..Settings::new([server]) };
    (Client::new(&settings).unwrap_or_else(|f| panic!("{f:?}")), std::thread::spawn(serve))
}

fn post(client: &Client) -> Result<Posted> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let body = |basis: Option<u64>| serde_json::to_vec(&serde_json::json!({"id": "b", "basis": basis})).unwrap();
    runtime.block_on(client.post("b", Wait::Committed, None, body))
}

const GOOD: Option<(u16, &str)> = Some((202, r#"{"batch":"b","seq":9,"basis":7,"state":"committed"}"#));

#[test]
fn a_batch_is_tried_again_under_its_id_with_the_first_basis_that_was_learned() {
    let busy = Some((503, r#"{"error":{"kind":"Unavailable","message":"full"}}"#));
    let lost = Some((503, r#"{"error":{"kind":"Indeterminate","message":"lost","basis":7}}"#));
    let (client, server) = scripted(vec![busy, lost, lost, None, GOOD]);
    let posted = post(&client).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!((posted.receipt.seq, posted.tries), (9, 5));
    let asked = server.join().unwrap();
    assert!(asked.iter().all(|(to, body)| to == "POST /v1/batches?wait=committed" && body["id"] == "b"));
    let bases: Vec<Option<u64>> = asked.iter().map(|(_, body)| body["basis"].as_u64()).collect();
    assert_eq!(bases, [None, None, Some(7), Some(7), Some(7)]);
}

#[test]
fn a_batch_whose_basis_is_too_old_is_looked_up_in_the_whole_history() {
    let lost = Some((503, r#"{"error":{"kind":"Indeterminate","message":"lost","basis":7}}"#));
    let void = Some((503, r#"{"error":{"kind":"Indeterminate","message":"beyond the horizon","basis":70000}}"#));
    let absent = Some((404, r#"{"error":{"kind":"NotFound","message":"unknown","basis":70001}}"#));
    let (client, server) = scripted(vec![lost, void, absent, GOOD]);
    assert_eq!(post(&client).unwrap_or_else(|f| panic!("{f:?}")).receipt.seq, 9);
    let asked = server.join().unwrap();
    assert_eq!(asked[2].0, "GET /v1/batches/b?history=full");
    assert_eq!((&asked[1].1["basis"], &asked[3].1["basis"]), (&7.into(), &70001.into()));

    let found = Some((200, r#"{"batch":"b","seq":3,"basis":70001,"state":"published","checkpoint":2}"#));
    let (client, server) = scripted(vec![lost, void, found]);
    assert_eq!(post(&client).unwrap_or_else(|f| panic!("{f:?}")).receipt.seq, 3);
    assert_eq!(server.join().unwrap().len(), 3);
}

/// What becomes of a batch whose first try had no answer.
fn after_silence(last: Option<(u16, &'static str)>) -> Failure {
    let (client, server) = scripted([vec![None], last.map(Some).into_iter().collect()].concat());
    let client = Client { retry_for_ms: 300, ..client };
    let Err(failure) = post(&client) else { panic!("{last:?}") };
    server.join().unwrap();
    failure
}

#[test]
fn what_one_try_leaves_open_no_later_one_closes_but_a_verdict_on_the_id() {
    let failure = after_silence(None); // the server is gone, too
    let Failure::InDoubt(last) = &failure else { panic!("{failure:?}") };
    assert!(matches!(**last, Failure::Unreachable { met: false, .. }), "{last:?}");
    assert_eq!((failure.kind(), last.kind()), (Kind::Indeterminate, Kind::Unavailable));
    assert!(failure.to_string().ends_with("; it may have happened"), "{failure}");
    for (status, body) in [
        (400, r#"{"error":{"kind":"Invalid","field":"body","message":"did not come to its end"}}"#),
        (401, r#"{"error":{"kind":"Unauthorized","message":"no"}}"#),
        (404, r#"{"error":{"kind":"NotFound","message":"no such route"}}"#),
        (500, r#"{"error":{"kind":"Corrupt","message":"x"}}"#),
        (503, r#"{"error":{"kind":"Unavailable","message":"full","retry_after_s":60}}"#),
        (200, "<html>"),
    ] {
        let failure = after_silence(Some((status, body)));
        assert!(matches!(failure, Failure::InDoubt(_)), "{status}: {failure:?}");
    }
    let failure = after_silence(Some((409, r#"{"error":{"kind":"Conflict","message":"other content"}}"#)));
    assert!(matches!(failure, Failure::Answered(_)) && failure.kind() == Kind::Conflict, "{failure:?}");
    let lost = (503, r#"{"error":{"kind":"Indeterminate","message":"lost","retry_after_s":60}}"#);
    assert!(matches!(after_silence(Some(lost)), Failure::Answered(_)));
}

#[test]
fn a_proxy_that_gives_up_leaves_a_batch_in_doubt_and_a_look_as_it_is() {
    let away = Some((504, "<html>"));
    let (client, server) = scripted(vec![away, away]);
    let client = Client { retry_for_ms: 0, ..client };
    let Err(failure) = post(&client) else { panic!("a proxy's page") };
    assert!(matches!(&failure, Failure::InDoubt(f) if matches!(**f, Failure::Stranger { .. })), "{failure:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failure = runtime.block_on(client.get("v1/status", &[])).unwrap_err();
    assert!(matches!(failure, Failure::Stranger { .. }), "{failure:?}");
    server.join().unwrap();
}

#[test]
fn requests_that_fail_together_go_on_by_one_server() {
    let (second, server) = scripted(vec![GOOD, GOOD]);
    let servers = ["http://127.0.0.1:1", second.server()];
    let client = Client::new(&Settings::new(servers)).unwrap_or_else(|f| panic!("{f:?}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let body = |_| b"{}".to_vec();
    let post = || client.post("b", Wait::Committed, None, body);
    let (one, two) = runtime.block_on(async { tokio::join!(post(), post()) });
    assert_eq!([one, two].map(|posted| posted.unwrap_or_else(|f| panic!("{f:?}")).tries), [2, 2]);
    assert_eq!((server.join().unwrap().len(), client.turn()), (2, 1));
}

#[test]
fn a_refusal_is_not_tried_again() {
    let (client, server) = scripted(vec![Some((409, r#"{"error":{"kind":"Conflict","message":"other content"}}"#))]);
    let Err(failure) = post(&client) else { panic!("refused") };
    assert_eq!((failure.kind(), server.join().unwrap().len()), (Kind::Conflict, 1));
}

#[test]
fn pauses_grow_and_keep_to_what_the_server_asked() {
    assert_eq!((pause_ms(1, None, 0.0), pause_ms(1, None, 0.999)), (50, 99));
    assert_eq!((pause_ms(4, None, 0.0), pause_ms(40, None, 0.0)), (400, LONGEST_PAUSE_MS / 2));
    assert!((2_000..=3_000).contains(&pause_ms(9, Some(2_000), 0.5)));
    assert!(pause_ms(1, Some(u64::MAX), 0.5) <= LONGEST_RETRY_AFTER_MS + 1_000);
}

#[test]
fn only_a_url_of_a_server_is_one() {
    let args = |server: &str| Settings::new([server]);
    for bad in ["", "localhost", "ftp://x", "/srv", ":80", "x:port"] {
        assert!(matches!(Client::new(&args(bad)), Err(Failure::Setup(_))), "{bad}");
    }
    let client = Client::new(&args("http://127.0.0.1:1/prefix")).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(client.base(0).join("v1/status").unwrap().as_str(), "http://127.0.0.1:1/prefix/v1/status");
    for (short, long) in [("localhost:8080", "http://localhost:8080"), ("[::1]:80", "http://[::1]")] {
        assert_eq!(Client::new(&args(short)).unwrap_or_else(|f| panic!("{f:?}")).server(), long);
    }
}

#[test]
fn a_server_that_never_answered_is_tried_for_as_long_as_the_user_says() {
    let patience = |retry_for_ms| {
        let settings = Settings { retry_for_ms, ..Settings::new(["http://127.0.0.1:1"]) };
        let client = Client::new(&settings).unwrap_or_else(|f| panic!("{f:?}"));
        (client.never_there_ms, client.retry_for_ms)
    };
    assert_eq!(patience(None), (NEVER_THERE_MS, RETRY_FOR_MS));
    assert_eq!(patience(Some(7)), (7, 7));
}

#[test]
fn what_one_server_cannot_take_another_gets_at_once_with_the_same_id() {
    let busy = Some((503, r#"{"error":{"kind":"Unavailable","message":"full","retry_after_s":30}}"#));
    let (first, one) = scripted(vec![busy]);
    let (second, two) = scripted(vec![GOOD]);
    let servers = ["http://127.0.0.1:1".into(), first.server().to_owned(), second.server().to_owned()];
    let client = Client::new(&Settings::new(servers)).unwrap_or_else(|f| panic!("{f:?}"));
    let posted = post(&client).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!((posted.receipt.seq, posted.tries), (9, 3));
    assert_eq!(one.join().unwrap()[0].1, two.join().unwrap()[0].1);
}

#[test]
fn publish_waits_for_the_checkpoint_and_keeps_the_basis_of_the_receipt() {
    let done = Some((200, r#"{"batch":"b","seq":9,"basis":30,"state":"published","checkpoint":4}"#));
    let (client, server) = scripted(vec![GOOD, GOOD, done]);
    let change = crate::change::ChangeRequest::parse(br#"{"op":"remove","path":"x"}"#).unwrap();
    let batch = BatchRequest { id: Some("b".into()), basis: Some(5), changes: vec![change] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let receipt = runtime.block_on(client.publish(&batch, Wait::Published)).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(receipt.checkpoint, Some(4));
    let asked = server.join().unwrap();
    assert!(asked.iter().all(|(to, body)| to == "POST /v1/batches?wait=published" && body["id"] == "b"));
    assert_eq!(asked.iter().map(|(_, body)| body["basis"].as_u64()).collect::<Vec<_>>(), [Some(5), Some(7), Some(7)]);

    // What is committed has happened, whatever the wait for its checkpoint comes to.
    let (client, server) = scripted(vec![GOOD]);
    let client = Client { retry_for_ms: 0, ..client };
    let failure = runtime.block_on(client.publish(&batch, Wait::Published)).unwrap_err();
    assert_eq!((failure.kind(), server.join().unwrap().len()), (Kind::Indeterminate, 1));
}
