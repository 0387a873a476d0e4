//! What needs no broker, only librdkafka.

use std::ffi::CString;

use rdkafka::producer::Producer;

use super::*;
use crate::error::Kind;

/// A log whose brokers are not there.
fn nowhere() -> KafkaLog {
    let mut settings = KafkaSettings::new("127.0.0.1:1", "r");
    settings.options.insert("sasl.password".into(), "hush".into());
    assert!(!format!("{settings:?}").contains("hush"));
    let (link, asking, dropping) = start(&settings).unwrap();
    let (producers, asker) = (Producers::new(&link).unwrap(), Arc::new(link.asker(None).unwrap()));
    let topics = Topics::of(&link, 4);
    let (pickers, known, closed) = (Pickers::default(), Mutex::default(), CancellationToken::new());
    let (tail, inbox_asker) = (Mutex::default(), OnceCell::new());
    let shared = Shared { link, topics, producers, pickers, tail, asker, inbox_asker, asking, dropping, known, closed };
    KafkaLog { shared: Arc::new(shared) }
}

#[tokio::test]
async fn a_producer_that_failed_for_good_is_replaced_and_what_it_had_may_have_happened() {
    let log = nowhere();
    let mut lost = log.append(Partition::Ledger, "lost".into());
    assert!(futures::poll!(&mut lost).is_pending());
    let failed = log.shared.producers.current(&log.shared, Partition::Ledger).unwrap();
    let why = CString::new("as a test").unwrap();
    let code = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the client lives, and librdkafka copies the text.
    unsafe { rdkafka::bindings::rd_kafka_test_fatal_error(failed.client().native_ptr(), code, why.as_ptr()) };
    assert_eq!(lost.await.unwrap_err().kind, Kind::Indeterminate);

    let mut next = log.append(Partition::Ledger, "next".into());
    assert!(futures::poll!(&mut next).is_pending(), "a new producer took it");
    assert!(!Arc::ptr_eq(&failed, &log.shared.producers.current(&log.shared, Partition::Ledger).unwrap()));
    drop((failed, log));
    assert_eq!(next.await.unwrap_err().kind, Kind::Indeterminate, "a dropped log gives up what has no answer");
}

#[tokio::test]
async fn appends_wait_for_room_and_a_closed_log_takes_none() {
    let log = nowhere();
    let payload = Bytes::from(vec![0; 1 << 20]);
    let mut appends: Vec<_> = (0..40).map(|_| log.append(Partition::Changes(0), payload.clone())).collect();
    for append in &mut appends {
        assert!(futures::poll!(append).is_pending());
    }
    drop(log);
    let mut kinds = Vec::new();
    for append in appends {
        kinds.push(append.await.unwrap_err().kind);
    }
    let sent = kinds.iter().filter(|kind| **kind == Kind::Indeterminate).count();
    assert!((16..=32).contains(&sent), "{sent} of 40 MiB were handed to librdkafka");
    assert!(kinds[sent..].iter().all(|kind| *kind == Kind::Unavailable), "the others were never sent");
}
