//! The tamper suite on a real Kafka: the log is copied, with the damage, into topics of its own.

use tuflog::log::kafka::{KafkaLog, KafkaSettings};

use super::repository::in_memory;
use super::tamper::{Case, CutBehind, Drop, Duplicate, Flip, Found, NoTrace, Swap, check, history, tampered, write};
use crate::{kafka, server};

/// A log on Kafka with these damages, and what the audit says of each.
const CASES: [Case; 9] = [
    ("fold-report", 5, Duplicate, NoTrace("a report may stand there any number of times")),
    ("format", 0, Duplicate, Found("record_duplicated", "ledger seq 1")),
    ("commit", 1, Drop, Found("record_dropped", "a record before ledger seq 8")),
    ("commit", 1, Duplicate, Found("record_duplicated", "ledger seq 9")),
    ("cut", 1, Swap, Found("record_reordered", "ledger seq 6")),
    ("checkpoint", 2, CutBehind, Found("record_dropped", "ledger seq 11")),
    ("segment", 0, Flip("\"length\":"), Found("record_altered", "segment 0 of partition 0")),
    ("segment", 8, CutBehind, Found("split_batch", "segment 1 of partition 1")),
    ("fold-report", 5, Drop, Found("record_dropped", "report of partition 1 about cut 2")),
];

#[test]
fn a_log_on_kafka() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (history, mut bad) = (history(), Vec::new());
    for case in CASES {
        let settings = kafka::one().fresh();
        let log = runtime.block_on(async {
            KafkaLog::create_topics(&settings, 4, 1, 1).await.unwrap();
            KafkaLog::open(&settings).await.unwrap()
        });
        write(&log, &tampered(&history, case));
        drop(log);
        let (dir, KafkaSettings { brokers, repo, .. }) = (in_memory(), &settings);
        std::os::unix::fs::symlink(history.dir.path().join("store"), dir.path().join("store")).unwrap();
        let mut command = server::command(&["audit", "--data", dir.path().to_str().unwrap()]);
        command.envs([("TUFLOG_KAFKA_BROKERS", brokers), ("TUFLOG_KAFKA_REPO", repo)]);
        bad.extend(check(case, case.3, &mut command).err());
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
