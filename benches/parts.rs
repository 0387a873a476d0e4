//! The costs that the speed of the whole is made of, one by one, without a server.
//!
//! `cargo bench --profile dev --bench parts [-- NAME]`, about two minutes. Throughput is in changes, records or bytes,
//! so that a figure can be set against what `tuflog bench` measures of the whole path.

#[allow(dead_code)]
#[path = "../tests/suite/help.rs"]
mod help;
#[allow(dead_code)]
#[path = "../tests/suite/server.rs"]
mod server;

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use tuflog::audit;
use tuflog::bins::Layout;
use tuflog::change::{Batch, Change};
use tuflog::clock::SystemClock;
use tuflog::fold::state::{BatchChanges, State};
use tuflog::ledger::MAX_SEGMENT_BYTES;
use tuflog::ledger::follower::Mark;
use tuflog::ledger::segment::{self, Segment};
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::{Log, Partition};
use tuflog::tuf::role::{self, Meta};
use tuflog::tuf::{Envelope, Signer, parse};

const EXPIRES: u64 = 1_800_000_000;

/// The n-th target, of a usual size.
fn add(n: u64) -> Change {
    let hashes = [("sha256".to_owned(), format!("{n:064x}"))];
    let path = format!("pool/main/p/package-{n}/package-{n}_1.0-1_amd64.deb");
    Change::add(path, 1_000_000 + n, &hashes.into(), None).unwrap()
}

fn adds(from: u64, count: u64) -> Vec<Change> {
    (from..from + count).map(add).collect()
}

/// What a producer's change becomes before it is appended, and how it is read back.
fn segments(c: &mut Criterion) {
    let layout = Layout::new(1_024, 4).unwrap();
    let mut group = c.benchmark_group("change");
    let hashes = [("sha256".to_owned(), "ab".repeat(32))].into();
    let path = "pool/main/p/package/package_1.0-1_amd64.deb";
    group.throughput(Throughput::Elements(1));
    group.bench_function("canonical fragment", |b| {
        b.iter_batched(|| path.to_owned(), |p| Change::add(p, 1_000_000, &hashes, None), BatchSize::SmallInput)
    });
    group.bench_function("route", |b| b.iter(|| layout.partition_of(layout.bin_of(black_box(path)))));
    let batch = Batch::new("batch-1".into(), None, adds(0, 1_000)).unwrap();
    let batches = [batch];
    let cut = || segment::cut(&batches, layout, MAX_SEGMENT_BYTES);
    let bytes: Vec<Bytes> = cut().segments.into_iter().map(|(_, bytes)| bytes).collect();
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("segments, encode", |b| b.iter(cut));
    group.bench_function("segments, decode", |b| {
        b.iter(|| bytes.iter().map(|s| Segment::decode(s).unwrap().parts.len()).sum::<usize>())
    });
    group.finish();
}

/// Appends of the size of a small Commit, durable when answered.
fn log(c: &mut Criterion) {
    let scratch = help::scratch();
    let log = EmbeddedLog::open(scratch.path(), Arc::new(SystemClock)).unwrap();
    let record = Bytes::from(vec![b' '; 300]);
    let mut group = c.benchmark_group("embedded log");
    for width in [1, 64] {
        group.throughput(Throughput::Elements(width));
        group.bench_function(format!("append, {width} at a time"), |b| {
            b.iter(|| help::block_on(join_all((0..width).map(|_| log.append(Partition::Ledger, record.clone())))))
        });
    }
    group.finish();
}

/// What a fold does: changes into bin state, bins out of it.
fn fold(c: &mut Criterion) {
    let scratch = help::scratch();
    let layout = Layout::new(256, 1).unwrap();
    let state = State::open(scratch.path(), layout).unwrap();
    let mut seq = 0;
    let mut apply = |changes: Vec<Change>| {
        seq += 1;
        let mark = Mark { next: seq + 1, last: None };
        let batch = BatchChanges { seq, index: 0, changes };
        state.apply(0, &[batch], &mark, &mut BTreeSet::new()).unwrap();
    };
    (0..250).for_each(|n| apply(adds(n * 1_000, 1_000))); // bins of about 1,000 targets
    let mut group = c.benchmark_group("fold");
    group.throughput(Throughput::Elements(1_000));
    let mut n = 0;
    group.bench_function("apply, batches of 1,000", |b| {
        let next = || {
            n += 1;
            adds(n * 7_919 % 249_000, 1_000) // replaces what is there
        };
        b.iter_batched(next, &mut apply, BatchSize::SmallInput)
    });
    let signers = [Arc::new(Signer::from_seed(&[1; 32]))];
    let mut content = Vec::new();
    state.content(7, &mut content).unwrap();
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("read a bin of 1,000 targets", |b| {
        b.iter(|| {
            content.clear();
            state.content(7, &mut content).unwrap()
        })
    });
    group.bench_function("render and sign it", |b| b.iter(|| role::bin(&signers, 9, EXPIRES, &content)));
    let file = role::bin(&signers, 9, EXPIRES, &content);
    group.bench_function("parse it, as a query does", |b| {
        b.iter(|| parse::parse_bin(Envelope::open(&file).unwrap().signed).unwrap().targets.len())
    });
    group.finish();
}

/// A snapshot from its rendered entries, signed.
fn snapshot(c: &mut Criterion) {
    let signers = [Arc::new(Signer::from_seed(&[1; 32]))];
    let targets = Meta::of(1, b"targets");
    let mut group = c.benchmark_group("snapshot");
    for bins in [256, 1_024, 16_384] {
        let layout = Layout::new(bins, 1).unwrap();
        let entry = |bin| format!("\"{}.json\":{{\"version\":1234}}", layout.name(bin));
        let entries = (0..bins).map(entry).collect::<Vec<_>>().join(",");
        group.throughput(Throughput::Bytes(entries.len() as u64));
        group.bench_function(format!("{bins} bins"), |b| {
            b.iter(|| role::snapshot(&signers, 1_234, EXPIRES, &targets, entries.as_bytes()))
        });
    }
    group.finish();
}

/// The audit of a small repository, in one thread: everything is replayed, rebuilt, compared and verified.
fn replay(c: &mut Criterion) {
    let scratch = help::scratch();
    let data = scratch.path().join("data");
    server::init(&data, &["--bins", "64"]);
    let node = server::Server::start(&data, &["--min-cut-interval-ms", "200"]);
    let url = node.url();
    let load =
        ["bench", "--changes", "50000", "--batch-size", "500", "--probes", "0", "--readers", "0", "--server", &url];
    server::run(&load);
    node.stop();
    let mut group = c.benchmark_group("audit");
    group.sample_size(10).throughput(Throughput::Elements(50_000));
    group.bench_function("replay of 50,000 changes", |b| {
        b.iter(|| {
            let audit = audit::run_data_dir(&data, audit::Options::default(), |_| ());
            assert!(help::block_on(audit).unwrap().is_clean())
        })
    });
    group.finish();
}

fn settings() -> Criterion {
    let (warm_up, measure) = (Duration::from_millis(500), Duration::from_secs(3));
    Criterion::default().warm_up_time(warm_up).measurement_time(measure).sample_size(20).without_plots()
}

criterion_group!(name = parts; config = settings(); targets = segments, log, fold, snapshot, replay);
criterion_main!(parts);
