//! The load: which changes are sent, and what each leaves behind.
//!
//! Owns that one seed gives one load. Every lane (a producer, one batch after the other) has targets of its own, so the
//! last writer of a path is known without looking at the order of the log. A target's content follows from its path
//! and its revision, which stands in its length: whoever reads a target knows which change wrote it. A removed target
//! never comes back.
//!
//! A body is written straight into bytes: the machine that is measured often runs the load too.

use std::collections::HashMap;
use std::rc::Rc;

use fastrand::Rng;

use super::options::{Mix, Skew};
use crate::bins::Layout;

/// What the length of a target in its first revision is one above.
const LENGTH_BASE: u64 = 1_000_000;
/// The revision of a target that is removed.
pub const REMOVED: u32 = u32::MAX;
/// How often a path is drawn for a skew before one is taken as it comes.
const DRAWS: u32 = 10_000;

/// What the targets of a run have in common.
pub struct Load {
    /// See the module.
    pub seed: u64,
    /// Makes the ids of this run's batches unlike any other's: `[a-z0-9]`.
    pub run: String,
    mix: Mix,
    weights: Option<Weights>,
}

impl Load {
    /// A load on a repository of this layout.
    pub fn new(seed: u64, run: String, mix: Mix, skew: Skew, layout: Layout) -> Load {
        Load { seed, run, mix, weights: Weights::new(skew, layout) }
    }
}

/// How likely a bin is to be hit, relative to the likeliest one.
struct Weights {
    layout: Layout,
    of: Vec<f64>,
}

impl Weights {
    fn new(skew: Skew, layout: Layout) -> Option<Weights> {
        let bins = layout.bins() as usize;
        let by_rank: Box<dyn Fn(usize) -> f64> = match skew {
            Skew::Uniform => return None,
            Skew::Zipf(s) => Box::new(move |rank| ((rank + 1) as f64).powf(-s)),
            Skew::Hot { bins: hot, percent } => {
                let hot = (hot as usize).min(bins);
                let (inside, outside) = (f64::from(percent) / hot as f64, f64::from(100 - percent));
                let outside = outside / (bins - hot).max(1) as f64;
                let most = inside.max(outside);
                Box::new(move |rank| if rank < hot { inside / most } else { outside / most })
            }
        };
        // An odd factor permutes the bins, so that hot ones are not neighbours in one partition.
        let rank = |bin: usize| bin.wrapping_mul(0x9E37_79B1) & (bins - 1);
        Some(Weights { layout, of: (0..bins).map(|bin| by_rank(rank(bin))).collect() })
    }

    fn bin(&self, seed: u64, lane: u32, number: u32) -> usize {
        self.layout.bin_of(&path(seed, lane, number)) as usize
    }
}

/// One change, as far as it can be seen in what is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The number of the lane's target.
    pub number: u32,
    /// Its revision from then on, from 1; or [`REMOVED`].
    pub rev: u32,
}

/// A batch ready to be sent.
pub struct Batch {
    /// `bench-SEED-RUN-LANE-NUMBER`.
    pub id: String,
    /// Its number in its lane.
    pub number: u32,
    /// What it does, in its order.
    pub steps: Rc<[Step]>,
    changes: Vec<u8>,
}

impl Batch {
    /// The body of `POST /v1/batches`.
    pub fn body(&self, basis: Option<u64>) -> Vec<u8> {
        let basis = basis.map(|b| format!("\"basis\":{b},")).unwrap_or_default();
        let head = format!("{{\"id\":\"{}\",{basis}\"changes\":[", self.id);
        [head.as_bytes(), &self.changes, b"]}"].concat()
    }
}

/// A producer's targets, as they are once everything that it has sent has happened.
pub struct Lane {
    /// Its number.
    pub id: u32,
    rng: Rng,
    /// Revision by number; [`REMOVED`] for those that are gone.
    revisions: HashMap<u32, u32>,
    /// The number of the next new target.
    next: u32,
    /// The numbers of those that are there: by bin if the load is skewed, else in one list.
    live: Vec<Vec<u32>>,
    /// How many those are.
    count: usize,
    sent: u32,
}

impl Lane {
    /// A lane without targets.
    pub fn new(load: &Load, id: u32) -> Lane {
        let rng = Rng::with_seed(mix([load.seed, id.into(), 0, 0]));
        let lists = load.weights.as_ref().map_or(1, |w| w.of.len());
        Lane { id, rng, revisions: HashMap::new(), next: 0, live: vec![Vec::new(); lists], count: 0, sent: 0 }
    }

    /// Revision by number; [`REMOVED`] for those that are gone.
    pub fn revisions(&self) -> &HashMap<u32, u32> {
        &self.revisions
    }

    /// True if the target is removed, or a batch on its way removes it.
    pub fn is_removed(&self, number: u32) -> bool {
        self.revisions.get(&number) == Some(&REMOVED)
    }

    /// A batch that adds `size` targets, wherever they fall.
    pub fn fill(&mut self, load: &Load, size: usize) -> Batch {
        self.batch(load, size, Lane::add)
    }

    /// The next batch of the load.
    pub fn next(&mut self, load: &Load, size: usize) -> Batch {
        self.batch(load, size, Lane::step)
    }

    fn batch(&mut self, load: &Load, size: usize, step: impl Fn(&mut Lane, &Load) -> Step) -> Batch {
        let number = self.sent;
        self.sent += 1;
        let (mut steps, mut changes) = (Vec::with_capacity(size), Vec::with_capacity(size * 176));
        for i in 0..size {
            if i > 0 {
                changes.push(b',');
            }
            let step = step(self, load);
            write_change(load.seed, self.id, step, &mut changes);
            steps.push(step);
        }
        Batch { id: self.batch_id(load, number), number, steps: steps.into(), changes }
    }

    /// The id of its n-th batch.
    pub fn batch_id(&self, load: &Load, n: u32) -> String {
        format!("bench-{}-{}-{}-{n}", load.seed, load.run, self.id)
    }

    fn step(&mut self, load: &Load) -> Step {
        let dice = self.rng.u32(0..load.mix.total());
        if dice < load.mix.add || self.count == 0 {
            if let Some(weights) = &load.weights {
                self.skip_to_likely(load.seed, weights);
            }
            return self.add(load);
        }
        let (list, at) = self.pick(load);
        let number = self.live[list][at];
        let revision = self.revisions.entry(number).or_insert(1);
        if dice < load.mix.add + load.mix.replace && *revision < REMOVED - 1 {
            *revision += 1;
            return Step { number, rev: *revision };
        }
        *revision = REMOVED;
        self.live[list].swap_remove(at);
        self.count -= 1;
        Step { number, rev: REMOVED }
    }

    fn add(&mut self, load: &Load) -> Step {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.revisions.insert(number, 1);
        let list = load.weights.as_ref().map_or(0, |w| w.bin(load.seed, self.id, number));
        self.live[list].push(number);
        self.count += 1;
        Step { number, rev: 1 }
    }

    /// Passes over numbers whose bins the skew does not want now.
    fn skip_to_likely(&mut self, seed: u64, weights: &Weights) {
        for _ in 0..DRAWS {
            if self.rng.f64() < weights.of[weights.bin(seed, self.id, self.next)] {
                return;
            }
            self.next = self.next.wrapping_add(1);
        }
    }

    /// Where in `live` the target to change stands; there is one.
    fn pick(&mut self, load: &Load) -> (usize, usize) {
        let mut list = 0;
        if let Some(weights) = &load.weights {
            let any = self.live.iter().position(|l| !l.is_empty());
            let mut draws = (0..DRAWS).map(|_| (self.rng.usize(0..weights.of.len()), self.rng.f64()));
            let likely = draws.find(|(bin, dice)| *dice < weights.of[*bin] && !self.live[*bin].is_empty());
            list = likely.map(|(bin, _)| bin).or(any).unwrap_or(0);
        }
        (list, self.rng.usize(0..self.live[list].len().max(1)))
    }
}

/// What all paths of a seed begin with.
pub fn prefix(seed: u64) -> String {
    format!("bench/{seed}/")
}

/// The path of the target that says that the seed is in use.
pub fn marker(seed: u64) -> String {
    format!("bench/{seed}/marker")
}

/// The path of a target.
pub fn path(seed: u64, lane: u32, number: u32) -> String {
    format!("bench/{seed}/{lane}/package-{number}.tar.gz")
}

/// The fragment of a target: canonical JSON.
fn write_fragment(seed: u64, lane: u32, number: u32, rev: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"hashes":{"sha256":""#);
    write_digest(seed, lane, number, rev, out);
    out.extend_from_slice(br#""},"length":"#);
    out.extend_from_slice((LENGTH_BASE + u64::from(rev)).to_string().as_bytes());
    out.push(b'}');
}

fn write_change(seed: u64, lane: u32, step: Step, out: &mut Vec<u8>) {
    if step.rev == REMOVED {
        out.extend_from_slice(br#"{"op":"remove""#);
    } else {
        write_fragment(seed, lane, step.number, step.rev, out);
        out.pop();
        out.extend_from_slice(br#","op":"add""#);
    }
    out.extend_from_slice(br#","path":""#);
    out.extend_from_slice(path(seed, lane, step.number).as_bytes());
    out.extend_from_slice(b"\"}");
}

/// 64 hex digits that only this revision of this target has.
fn write_digest(seed: u64, lane: u32, number: u32, rev: u32, out: &mut Vec<u8>) {
    let mut state = mix([seed, lane.into(), number.into(), rev.into()]);
    for _ in 0..8 {
        state = mix([state, 0, 0, 0]);
        let digits = &mut [0; 8];
        if hex::encode_to_slice(&state.to_be_bytes()[..4], digits).is_ok() {
            out.extend_from_slice(digits);
        }
    }
}

/// SplitMix64 over some numbers: no two loads look alike, at a few nanoseconds a target.
fn mix(of: [u64; 4]) -> u64 {
    of.into_iter().fold(0, |state: u64, n| {
        let mut z = (state ^ n).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// A target of the load as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its lane.
    pub lane: u32,
    /// Its number there.
    pub number: u32,
    /// Its revision; `None` if the content is none that was ever sent for the path.
    pub rev: Option<u32>,
}

/// Reads a published target; `None` if its path is none of this seed's lanes.
pub fn read(seed: u64, path_read: &str, fragment: &str) -> Option<Seen> {
    let rest = path_read.strip_prefix("bench/")?.strip_prefix(seed.to_string().as_str())?.strip_prefix('/')?;
    let (lane, file) = rest.split_once('/')?;
    let number = file.strip_prefix("package-")?.strip_suffix(".tar.gz")?.parse().ok()?;
    let lane = lane.parse().ok()?;
    if path(seed, lane, number) != path_read {
        return None;
    }
    let rev = || -> Option<u32> {
        let length: u64 = fragment.strip_suffix('}')?.rsplit_once(':')?.1.parse().ok()?;
        let rev = u32::try_from(length.checked_sub(LENGTH_BASE)?).ok()?;
        let mut own = Vec::with_capacity(fragment.len());
        write_fragment(seed, lane, number, rev, &mut own);
        (own == fragment.as_bytes()).then_some(rev)
    };
    Some(Seen { lane, number, rev: rev() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::BatchRequest;

    fn load(seed: u64, skew: &str) -> Load {
        let layout = Layout::new(64, 4).unwrap();
        Load::new(seed, "r".into(), "50:30:20".parse().unwrap(), skew.parse().unwrap(), layout)
    }

    fn batches(load: &Load, n: usize) -> Vec<Batch> {
        let mut lane = Lane::new(load, 3);
        (0..n).map(|_| lane.next(load, 100)).collect()
    }

    #[test]
    fn one_seed_gives_one_load() {
        let bodies = |seed| batches(&load(seed, "uniform"), 3).iter().map(|b| b.body(None)).collect::<Vec<_>>();
        assert_eq!(bodies(1), bodies(1));
        assert_ne!(bodies(1), bodies(2));
    }

    #[test]
    fn every_body_is_valid_and_its_targets_are_recognised_when_read() {
        let load = load(7, "uniform");
        let mut removed = 0;
        for batch in batches(&load, 20) {
            let parsed = BatchRequest::parse(&batch.body(Some(4))).unwrap();
            assert_eq!((parsed.id.as_ref(), parsed.basis), (Some(&batch.id), Some(4)));
            let valid = parsed.validate(String::new, &[]).unwrap();
            for (change, step) in valid.changes.iter().zip(batch.steps.iter()) {
                let Some(fragment) = change.fragment() else {
                    removed += usize::from(step.rev == REMOVED);
                    continue;
                };
                let fragment = String::from_utf8(fragment).unwrap();
                let seen = Seen { lane: 3, number: step.number, rev: Some(step.rev) };
                assert_eq!(read(7, change.path(), &fragment), Some(seen));
                let other = fragment.replace("\"length\":1", "\"length\":2");
                assert_eq!(read(7, change.path(), &other), Some(Seen { rev: None, ..seen }));
            }
        }
        assert!(removed > 200, "{removed}");
        for path in ["bench/7/marker", "bench/70/3/package-1.tar.gz", "bench/7/3/package-01.tar.gz", "bench/7/3/x"] {
            assert_eq!(read(7, path, "{}"), None, "{path}");
        }
    }

    #[test]
    fn a_skew_hits_its_bins() {
        let layout = Layout::new(64, 4).unwrap();
        let most_hit = |skew: &str, top: usize| {
            let mut hits = vec![0; 64];
            for batch in batches(&load(1, skew), 50) {
                for step in batch.steps.iter() {
                    hits[layout.bin_of(&path(1, 3, step.number)) as usize] += 1;
                }
            }
            hits.sort_by(|a, b| b.cmp(a));
            hits[..top].iter().sum::<u32>() as f64 / hits.iter().sum::<u32>() as f64
        };
        assert!(most_hit("uniform", 4) < 0.12);
        let hot = most_hit("hot:4:80", 4);
        assert!((0.7..0.9).contains(&hot), "{hot}");
        let zipf = most_hit("zipf:1", 1); // 1 / H(64) = 0.21
        assert!((0.15..0.3).contains(&zipf), "{zipf}");
    }
}
