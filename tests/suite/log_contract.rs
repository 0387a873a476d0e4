//! The contract of the log, clause by clause, run by every driver. A test's name is the clause it proves.
//!
//! A driver enters with its [`Bed`]s. The clauses hold under faults too, so they never assume that an append is
//! answered `Ok` or that a read sees all there is at once: see [`Bed::append`] and [`Bed::read_to`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use tempfile::TempDir;
use tuflog::Result;
use tuflog::clock::{Clock, ManualClock, SystemClock};
use tuflog::error::Kind;
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::kafka::KafkaLog;
use tuflog::log::memory::{Faults, MemoryLog};
use tuflog::log::{Log, Offset, Partition, Reader, Record};

use crate::help::{PATIENCE, scratch};
use crate::kafka::{self, Cluster};

const P: Partition = Partition::Changes(3);
const ALL: usize = usize::MAX;

/// An empty log to test.
struct Bed {
    log: Arc<dyn Log>,
    /// How many partitions of `changes` there are.
    partitions: u16,
    /// When records are written, by the log's own clock.
    time: RangeInclusive<u64>,
    memory: Option<MemoryLog>,
    _dir: Option<TempDir>,
}

fn embedded() -> [Bed; 1] {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), Arc::new(ManualClock::new(TIME))).unwrap();
    [Bed { log, partitions: 1024, time: TIME..=TIME, memory: None, _dir: Some(dir) }]
}

/// A fresh repository on a real cluster that tests share.
async fn kafka(cluster: impl FnOnce() -> &'static Cluster + Send + 'static) -> [Bed; 1] {
    let cluster = tokio::task::spawn_blocking(cluster).await.unwrap();
    let log = Arc::new(KafkaLog::open(&cluster.repo().await).await.unwrap());
    let now = SystemClock.now();
    [Bed { log, partitions: kafka::PARTITIONS, time: now - 1..=now + 600, memory: None, _dir: None }]
}

/// One for each seed.
fn memory(seeds: Range<u64>, faults: Faults) -> impl Iterator<Item = Bed> {
    seeds.map(move |seed| {
        let log = MemoryLog::new(seed, faults);
        log.set_time(TIME);
        Bed { log: Arc::new(log.clone()), partitions: 1024, time: TIME..=TIME, memory: Some(log), _dir: None }
    })
}

/// What the beds' clocks say.
const TIME: u64 = 1_700_000_000;

impl Bed {
    /// Lets late appends land, where a driver has any.
    fn settle(&self) {
        self.memory.iter().for_each(MemoryLog::deliver_late);
    }

    /// Appends until the answer is `Ok`: the record may be there more than once.
    async fn append(&self, to: Partition, payload: impl Into<Bytes>) -> Offset {
        let payload = payload.into();
        loop {
            match self.log.append(to, payload.clone()).await {
                Ok(offset) => return offset,
                Err(e) => assert!(!e.is_fatal(), "{e}"),
            }
        }
    }

    /// The record at `at`, which is there.
    async fn fetch(&self, of: Partition, at: Offset) -> Record {
        loop {
            if let Some(record) = passing(self.log.fetch(of, at).await).flatten() {
                return record;
            }
        }
    }

    async fn end(&self, of: Partition) -> Offset {
        loop {
            if let Some(end) = passing(self.log.end(of).await) {
                return end;
            }
        }
    }

    /// Reads `reader` until it has passed `last`.
    async fn read_to(&self, reader: &mut dyn Reader, last: Offset) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        while records.last().is_none_or(|record| record.offset < last) {
            reader.ready().await.unwrap();
            records.extend(passing(reader.read(64 << 10).await).unwrap_or_default());
        }
        records
    }

    /// Everything in a partition, by a new reader.
    async fn all(&self, of: Partition) -> Vec<Record> {
        let end = match &self.memory {
            // Here the end may lag behind what was never answered.
            Some(memory) => memory.records(of).last().map_or(0, |record| record.offset + 1),
            None => self.end(of).await,
        };
        if end == 0 { Vec::new() } else { self.read_to(&mut *self.log.reader(of, 0), end - 1).await }
    }
}

/// A read may fail for the moment, never for good.
fn passing<T>(answer: Result<T>) -> Option<T> {
    answer.map_err(|e| assert_eq!(e.kind, Kind::Unavailable, "{e}")).ok()
}

fn rising(records: &[Record]) -> bool {
    records.is_sorted_by(|a, b| a.offset < b.offset)
}

async fn clause_1_an_answered_append_is_read_by_every_reader_at_its_offset(bed: Bed) {
    let mut early = bed.log.reader(P, 0);
    let mut answered = BTreeMap::new();
    for i in 0u32..100 {
        answered.insert(bed.append(P, i.to_be_bytes().to_vec()).await, i);
    }
    let last = *answered.last_key_value().unwrap().0;
    for reader in [&mut early, &mut bed.log.reader(P, 0)] {
        let seen = bed.read_to(&mut **reader, last).await;
        for (offset, i) in &answered {
            let record = seen.iter().find(|record| record.offset == *offset).expect("an answered append is seen");
            assert_eq!(record.payload[..], i.to_be_bytes());
            assert!(bed.time.contains(&record.time()), "{} is not in {:?}", record.time(), bed.time);
        }
    }
}

async fn clause_1_an_append_that_follows_an_answer_stands_behind_it(bed: Bed) {
    let mut last = None;
    for _ in 0..100 {
        let offset = bed.append(P, "x").await;
        assert!(Some(offset) > last);
        last = Some(offset);
    }
}

async fn clause_1_appends_in_flight_together_get_an_offset_each(bed: Bed) {
    let payload = |i: u32| [i.to_be_bytes().to_vec(), vec![7; i as usize % 300]].concat();
    let answers = join_all((0u32..2000).map(|i| bed.log.append(P, payload(i).into()))).await;
    bed.settle();
    let there: BTreeMap<Offset, Bytes> = bed.all(P).await.into_iter().map(|r| (r.offset, r.payload)).collect();
    let ok: Vec<(Offset, u32)> = answers.iter().zip(0..).filter_map(|(a, i)| Some((*a.as_ref().ok()?, i))).collect();
    assert_eq!(ok.iter().map(|(offset, _)| offset).collect::<BTreeSet<_>>().len(), ok.len());
    assert!(ok.iter().all(|(offset, i)| there[offset][..] == payload(*i)));
    if bed.memory.is_none() {
        assert_eq!((ok.len(), there.len()), (2000, 2000));
    }
}

async fn clause_2_an_unavailable_append_never_happened_and_an_indeterminate_one_at_most_twice(bed: Bed) {
    let mut answers = Vec::new();
    for i in 0u32..500 {
        answers.push(bed.log.append(P, i.to_be_bytes().to_vec().into()).await);
    }
    bed.settle();
    let there = bed.all(P).await;
    for (i, answer) in (0u32..).zip(answers) {
        let times = there.iter().filter(|record| record.payload[..] == i.to_be_bytes()).count();
        match answer.map_err(|e| e.kind) {
            Ok(_) => assert!((1..=2).contains(&times)),
            Err(Kind::Unavailable) => assert_eq!(times, 0),
            Err(Kind::Indeterminate) => assert!(times <= 2),
            Err(kind) => panic!("{kind}"),
        }
    }
}

async fn clause_2_dropping_the_future_of_an_append_leaves_the_log_working(bed: Bed) {
    let mut given_up = 0;
    for i in 0u32..100 {
        given_up += usize::from(bed.log.append(P, i.to_be_bytes().to_vec().into()).now_or_never().is_none());
        drop(bed.log.append(P, "never polled".into()));
    }
    let last = bed.append(P, "after").await;
    bed.settle();
    let there = bed.all(P).await;
    assert_eq!(there.iter().find(|record| record.offset == last).unwrap().payload, "after");
    if bed.memory.is_none() {
        assert_eq!((given_up, there.len()), (100, 101), "what was given up once it was queued is written");
    }
}

async fn clause_3_a_reader_sees_every_record_once_in_rising_order_while_others_append(bed: Bed) {
    let mut reader = bed.log.reader(P, 0);
    let writers = join_all((0u8..4).map(|writer| {
        let bed = &bed;
        async move {
            let mut last = 0;
            for i in 0u8..100 {
                last = bed.append(P, vec![writer, i]).await;
            }
            last
        }
    }));
    let reading = async {
        let (mut seen, mut open) = (Vec::new(), [true; 4]);
        while open.contains(&true) {
            reader.ready().await.unwrap();
            for record in passing(reader.read(30).await).unwrap_or_default() {
                open[usize::from(record.payload[0])] &= record.payload[1] < 99;
                seen.push(record);
            }
        }
        seen
    };
    let (_, mut seen) = futures::join!(writers, reading);
    bed.settle();
    let there = bed.all(P).await;
    let last = there.last().unwrap().offset;
    if seen.last().unwrap().offset < last {
        seen.extend(bed.read_to(&mut *reader, last).await);
    }
    assert!(rising(&seen));
    assert_eq!(seen, there);
}

async fn clause_3_a_reader_begins_at_the_first_record_at_or_after_its_place(bed: Bed) {
    for _ in 0..40 {
        bed.append(P, "x").await;
    }
    let there = bed.all(P).await;
    let end = there.last().unwrap().offset + 1;
    let mut moved = bed.log.reader(P, 0);
    for place in (0..end).rev().chain((0..end).step_by(3)) {
        let expected = there.iter().find(|record| record.offset >= place).unwrap();
        moved.seek(place);
        for reader in [&mut bed.log.reader(P, place), &mut moved] {
            assert_eq!(bed.read_to(&mut **reader, expected.offset).await.first(), Some(expected), "from {place}");
        }
    }
    let mut beyond = bed.log.reader(P, end);
    assert_eq!(passing(beyond.read(ALL).await).unwrap_or_default(), []);
    let next = bed.append(P, "next").await;
    let seen = bed.read_to(&mut *beyond, next).await;
    assert!(rising(&seen) && seen[0].offset >= end && seen.iter().any(|record| record.offset == next));
}

async fn clause_3_a_read_is_bounded_by_bytes_but_never_stands_still(bed: Bed) {
    let last = join_all((0..20).map(|_| bed.append(P, vec![1; 1000]))).await.into_iter().max().unwrap();
    for (max, most) in [(0, 1), (1, 1), (1000, 1), (2999, 2), (3000, 3)] {
        let mut reader = bed.log.reader(P, 0);
        let mut next = 0;
        while next <= last {
            reader.ready().await.unwrap();
            let records = passing(reader.read(max).await).unwrap_or_default();
            assert!(records.len() <= most, "{} records for {max} bytes", records.len());
            if bed.memory.is_none() {
                assert!(!records.is_empty());
            }
            next = records.last().map_or(next, |record| record.offset + 1);
        }
    }
}

async fn clause_3_ready_waits_for_a_record_and_moves_nothing(bed: Bed) {
    let mut reader = bed.log.reader(P, 0);
    assert!(reader.ready().now_or_never().is_none(), "nothing there");
    bed.append(Partition::Ledger, "elsewhere").await;
    assert!(reader.ready().now_or_never().is_none(), "nothing there yet");
    let (ready, offset) = futures::join!(reader.ready(), bed.append(P, "x"));
    ready.unwrap();
    for _ in 0..3 {
        reader.ready().await.unwrap();
    }
    assert!(bed.read_to(&mut *reader, offset).await.iter().any(|record| record.offset == offset));
}

async fn clause_4_a_record_is_read_again_by_its_offset_and_none_is_made_up(bed: Bed) {
    assert_eq!(passing(bed.log.fetch(P, 0).await).flatten(), None);
    for i in 0u8..50 {
        bed.append(P, vec![i]).await;
        bed.append(Partition::Changes(4), vec![100 + i]).await;
    }
    let there: BTreeMap<Offset, Record> = bed.all(P).await.into_iter().map(|record| (record.offset, record)).collect();
    let end = bed.end(P).await;
    for at in 0..end + 3 {
        match there.get(&at) {
            Some(record) => assert_eq!(bed.fetch(P, at).await, *record),
            None => assert_eq!(passing(bed.log.fetch(P, at).await).flatten(), None),
        }
    }
}

async fn clause_5_the_end_is_past_everything_answered_and_everything_read(bed: Bed) {
    assert_eq!(bed.end(P).await, 0);
    let mut reader = bed.log.reader(P, 0);
    for i in 0..100 {
        let offset = bed.append(P, "x").await;
        assert!(bed.end(P).await > offset);
        let read = bed.read_to(&mut *reader, offset).await;
        assert!(bed.end(P).await > read.last().unwrap().offset);
        assert_eq!(bed.end(Partition::Folds).await, 0, "after {i}");
    }
}

async fn clause_5_the_end_passes_an_append_that_a_reader_saw_before_it_was_answered(bed: Bed) {
    let mut reader = bed.log.reader(P, 0);
    for _ in 0..100 {
        let reading = async {
            reader.ready().await.unwrap();
            if let Some(last) = passing(reader.read(ALL).await).and_then(|records| records.last().map(|r| r.offset)) {
                assert!(bed.end(P).await > last);
            }
        };
        futures::join!(reading, bed.append(P, "x"));
    }
}

async fn clause_6_bytes_come_back_as_they_went_in_whatever_they_are(bed: Bed) {
    let mut rng = fastrand::Rng::with_seed(6);
    let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(1 << 20).collect();
    let sizes = [0, 1, 7, 8, 4088, 4095, 4096, 4097, 65_536, 172_000, 1 << 20];
    for partition in
        [Partition::Ledger, Partition::Folds, Partition::Changes(0), Partition::Changes(bed.partitions - 1)]
    {
        let mut offsets = Vec::new();
        for size in sizes {
            offsets.push((bed.append(partition, noise[..size].to_vec()).await, size));
        }
        let there = bed.all(partition).await;
        for (offset, size) in offsets {
            assert!(bed.fetch(partition, offset).await.payload == noise[..size]);
            assert!(there.iter().any(|record| record.offset == offset && record.payload == noise[..size]));
        }
    }
}

/// Every clause, for one driver.
macro_rules! driver {
    ($driver:ident, $beds:expr) => {
        mod $driver {
            use super::*;
            clauses! { $beds;
                clause_1_an_answered_append_is_read_by_every_reader_at_its_offset
                clause_1_an_append_that_follows_an_answer_stands_behind_it
                clause_1_appends_in_flight_together_get_an_offset_each
                clause_2_an_unavailable_append_never_happened_and_an_indeterminate_one_at_most_twice
                clause_2_dropping_the_future_of_an_append_leaves_the_log_working
                clause_3_a_reader_sees_every_record_once_in_rising_order_while_others_append
                clause_3_a_reader_begins_at_the_first_record_at_or_after_its_place
                clause_3_a_read_is_bounded_by_bytes_but_never_stands_still
                clause_3_ready_waits_for_a_record_and_moves_nothing
                clause_4_a_record_is_read_again_by_its_offset_and_none_is_made_up
                clause_5_the_end_is_past_everything_answered_and_everything_read
                clause_5_the_end_passes_an_append_that_a_reader_saw_before_it_was_answered
                clause_6_bytes_come_back_as_they_went_in_whatever_they_are
            }
        }
    };
}

macro_rules! clauses {
    ($beds:expr; $($clause:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $clause() {
            for bed in $beds {
                tokio::time::timeout(PATIENCE, super::$clause(bed)).await.expect("it hangs");
            }
        }
    )*};
}

driver!(embedded, embedded());
driver!(kafka_one_node, kafka(kafka::one).await);
driver!(kafka_three_nodes, kafka(kafka::three).await);
driver!(memory, memory(0..1, Faults::NONE));
driver!(memory_with_gaps, memory(0..5, Faults { gap_percent: 50, ..Faults::NONE }));
driver!(memory_with_faults, memory(0..20, Faults::MANY));
