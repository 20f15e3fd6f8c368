//! The protocol of totals, in memory: whatever the history, batch + deltas equal the rows and the frozen sums. Each rule that
//! the protocol consists of is broken in turn, and the difference is noticed.

use millstream_tests::random::Random;

const GROUPS: usize = 2;
const PIECES: usize = 3;
const HISTORIES: u64 = 100_000;

type Sums = [i64; GROUPS];

fn plus(a: Sums, b: Sums) -> Sums {
    std::array::from_fn(|group| a[group] + b[group])
}

fn minus(a: Sums, b: Sums) -> Sums {
    std::array::from_fn(|group| a[group] - b[group])
}

/// A rule of the protocol, to be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// One recompute at a time.
    OneRecompute,
    /// A recompute adds the difference instead of overwriting the batch.
    Difference,
    /// A recompute reads batch, deltas and rows in one snapshot.
    OneSnapshot,
    /// No partition is dropped while a recompute reads.
    FrozenLock,
    /// A table is not truncated while a recompute reads.
    TableLock,
    /// Folding removes deltas and adds them to the batch in one transaction.
    AtomicFold,
    /// The sums of a dropped partition are kept in the transaction that drops it.
    AtomicFreeze,
    /// A restored partition gives up its frozen sums.
    Restore,
}

/// A recompute between its snapshot and its commit.
#[derive(Clone, Copy)]
struct Recompute {
    snapshot: Database,
    difference: Option<Sums>,
    /// What a recompute with an older view of the total would overwrite it with.
    total: Sums,
}

#[derive(Clone, Copy, Default)]
struct Database {
    /// The rows of each piece; `None` if it was dropped.
    pieces: [Option<Sums>; PIECES],
    frozen: [Sums; PIECES],
    batch: Sums,
    delta: Sums,
}

impl Database {
    fn rows(&self) -> Sums {
        let live = self.pieces.iter().flatten().fold([0; GROUPS], |sum, piece| plus(sum, *piece));
        self.frozen.iter().fold(live, |sum, piece| plus(sum, *piece))
    }

    fn error(&self) -> Sums {
        minus(plus(self.batch, self.delta), self.rows())
    }
}

struct History {
    database: Database,
    recomputes: Vec<Recompute>,
    /// Deltas that a fold in two transactions has taken but not yet added.
    folding: Sums,
    broken: Option<Rule>,
    /// What was dropped, for a restore.
    dropped: [Option<Sums>; PIECES],
    falsified_at: Option<usize>,
}

impl History {
    fn keeps(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    fn step(&mut self, random: &mut Random) {
        let piece = random.below(PIECES as u64) as usize;
        match random.below(9) {
            0..3 => self.write(piece, random),
            3 => self.fold(),
            4 => self.begin_recompute(),
            5 => self.scan(),
            6 => self.commit_recompute(),
            7 if random.below(2) == 0 => self.truncate(piece),
            7 => self.drop_piece(piece),
            _ => self.restore(piece),
        }
    }

    /// A transaction changes rows, and its triggers add deltas.
    fn write(&mut self, piece: usize, random: &mut Random) {
        let Some(rows) = &mut self.database.pieces[piece] else { return };
        let change = std::array::from_fn(|_| random.below(5) as i64 - 2);
        *rows = plus(*rows, change);
        self.database.delta = plus(self.database.delta, change);
    }

    fn fold(&mut self) {
        if self.keeps(Rule::AtomicFold) {
            self.database.batch = plus(self.database.batch, self.database.delta);
        } else {
            self.database.batch = plus(self.database.batch, self.folding);
            self.folding = self.database.delta;
        }
        self.database.delta = [0; GROUPS];
    }

    fn begin_recompute(&mut self) {
        if self.recomputes.is_empty() || (!self.keeps(Rule::OneRecompute) && self.recomputes.len() < 2) {
            self.recomputes.push(Recompute { snapshot: self.database, difference: None, total: [0; GROUPS] });
        }
    }

    /// Reads the rows: those of the snapshot, except that dropped and truncated tables are empty for every snapshot.
    fn scan(&mut self) {
        let (now, one_snapshot) = (self.database, self.keeps(Rule::OneSnapshot));
        for recompute in self.recomputes.iter_mut().filter(|recompute| recompute.difference.is_none()) {
            let mut seen = recompute.snapshot;
            for piece in 0..PIECES {
                if now.pieces[piece].is_none() {
                    seen.pieces[piece] = None;
                }
            }
            let total = if one_snapshot { plus(seen.batch, seen.delta) } else { plus(now.batch, now.delta) };
            recompute.total = seen.rows();
            recompute.difference = Some(minus(seen.rows(), total));
        }
    }

    fn commit_recompute(&mut self) {
        let Some(index) = self.recomputes.iter().position(|recompute| recompute.difference.is_some()) else { return };
        let recompute = self.recomputes.remove(index);
        if self.keeps(Rule::Difference) {
            self.database.delta = plus(self.database.delta, recompute.difference.unwrap_or_default());
        } else {
            (self.database.batch, self.database.delta) = (recompute.total, [0; GROUPS]);
        }
    }

    fn is_read(&self) -> bool {
        !self.recomputes.is_empty()
    }

    fn truncate(&mut self, piece: usize) {
        if self.is_read() && self.keeps(Rule::TableLock) {
            return;
        }
        let Some(rows) = self.database.pieces[piece] else { return };
        self.database.pieces[piece] = Some([0; GROUPS]);
        self.database.delta = minus(self.database.delta, rows);
        if !self.keeps(Rule::TableLock) {
            // Old snapshots see the table empty, too.
            self.recomputes.iter_mut().for_each(|recompute| recompute.snapshot.pieces[piece] = Some([0; GROUPS]));
        }
    }

    fn drop_piece(&mut self, piece: usize) {
        if self.is_read() && self.keeps(Rule::FrozenLock) {
            return;
        }
        let Some(rows) = self.database.pieces[piece].take() else { return };
        if self.keeps(Rule::AtomicFreeze) {
            self.database.frozen[piece] = plus(self.database.frozen[piece], rows);
        }
        self.dropped[piece] = Some(rows);
    }

    /// Attaches a dropped piece again, perhaps without one of its rows.
    fn restore(&mut self, piece: usize) {
        if self.is_read() || self.database.pieces[piece].is_some() {
            return;
        }
        let Some(rows) = self.dropped[piece].take() else { return };
        let restored = minus(rows, [1, 0]);
        self.database.pieces[piece] = Some(restored);
        if self.keeps(Rule::Restore) {
            let frozen = std::mem::take(&mut self.database.frozen[piece]);
            self.database.delta = plus(self.database.delta, minus(restored, frozen));
        }
    }
}

/// Runs a history; returns whether the total was right after each step, and after a last recompute healed a falsified one.
fn run(seed: u64, broken: Option<Rule>) -> bool {
    let mut random = Random::new(seed);
    let database = Database { pieces: [Some([0; GROUPS]); PIECES], ..Database::default() };
    let mut history = History {
        database,
        recomputes: Vec::new(),
        folding: [0; GROUPS],
        broken,
        dropped: [None; PIECES],
        falsified_at: None,
    };
    let steps = 5 + random.below(25) as usize;
    if random.below(4) == 0 {
        history.falsified_at = Some(random.below(steps as u64) as usize);
    }
    let mut falsified = false;
    for step in 0..steps {
        if history.falsified_at == Some(step) {
            history.database.batch = plus(history.database.batch, [1, -3]);
            falsified = true;
        }
        let before = history.database.error();
        history.step(&mut random);
        let after = history.database.error();
        // A recompute may heal or, if it began before the total was falsified, change nothing; nothing else changes the error.
        let healed = after == [0; GROUPS];
        if !healed && (!falsified || after != before) {
            return false;
        }
    }
    heal(&mut history)
}

fn heal(history: &mut History) -> bool {
    history.scan();
    while history.is_read() {
        history.commit_recompute();
    }
    let off_by = history.database.error();
    history.begin_recompute();
    history.scan();
    let reported = history.recomputes[0].difference;
    history.commit_recompute();
    history.fold();
    if history.broken == Some(Rule::AtomicFold) {
        history.fold();
    }
    history.database.error() == [0; GROUPS] && reported == Some(minus([0; GROUPS], off_by))
}

#[test]
fn totals_equal_the_rows_after_any_history() {
    for seed in 0..HISTORIES {
        assert!(run(seed, None), "history {seed}");
    }
}

#[test]
fn every_rule_of_the_protocol_is_needed() {
    let rules = [
        Rule::OneRecompute,
        Rule::Difference,
        Rule::OneSnapshot,
        Rule::FrozenLock,
        Rule::TableLock,
        Rule::AtomicFold,
        Rule::AtomicFreeze,
        Rule::Restore,
    ];
    for rule in rules {
        assert!((0..HISTORIES).any(|seed| !run(seed, Some(rule))), "{rule:?} is not needed");
    }
}
