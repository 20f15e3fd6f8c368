//! The order in which transforms run, from their dependencies. Pure.
//!
//! A transform depends on those that its header names, and on the one that fills a table whose changes it reads. What is wrong
//! with a transform is its own problem, and that of those that depend on it: the others run.

use std::collections::VecDeque;

use super::file::TransformFile;

/// The dependencies of transforms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Graph {
    /// The transforms, by index, in an order in which every one comes after those that it depends on.
    pub order: Vec<usize>,
    /// The indexes of the transforms that each depends on.
    pub dependencies: Vec<Vec<usize>>,
    /// What is wrong with each, if anything: it must not run.
    pub problems: Vec<Option<String>>,
}

impl Graph {
    /// Orders transforms. Among those that could run next, the first one by name does.
    pub fn new(transforms: &[TransformFile]) -> Self {
        let mut problems: Vec<Option<String>> = vec![None; transforms.len()];
        let mut dependencies = Vec::new();
        for (index, transform) in transforms.iter().enumerate() {
            problems[index] = shared_target(transforms, index);
            match dependencies_of(transforms, transform) {
                Ok(found) => dependencies.push(found),
                Err(problem) => {
                    problems[index].get_or_insert(problem);
                    dependencies.push(Vec::new());
                }
            }
        }
        let names: Vec<&str> = transforms.iter().map(|transform| &*transform.name).collect();
        for (index, cycle) in find_cycles(&dependencies).into_iter().enumerate() {
            let Some(cycle) = cycle else { continue };
            let path: Vec<&str> = cycle.iter().map(|index| names[*index]).collect();
            let file = &transforms[index].file;
            problems[index].get_or_insert(format!("{file}: depends on itself: {}", path.join(" → ")));
        }
        let order = order(&dependencies, &names);
        Self { order, dependencies, problems }
    }
}

/// What is wrong if another transform has the same target.
fn shared_target(transforms: &[TransformFile], index: usize) -> Option<String> {
    let TransformFile { target, target_position, .. } = &transforms[index];
    let is_other = |(other, transform): &(usize, &TransformFile)| *other != index && transform.target == *target;
    let (_, other) = transforms.iter().enumerate().find(is_other)?;
    Some(format!("{target_position}: {} is also the target of transform {}", target.unquoted(), other.name))
}

/// The transforms that one depends on; the error is a dependency that does not exist.
fn dependencies_of(transforms: &[TransformFile], transform: &TransformFile) -> Result<Vec<usize>, String> {
    let mut found = Vec::new();
    for dependency in &transform.depends {
        match transforms.iter().position(|other| other.name == dependency.name) {
            Some(index) => found.push(index),
            None => {
                let known: Vec<&str> = transforms.iter().map(|other| &*other.name).collect();
                return Err(format!(
                    "{}: unknown transform `{}`; transforms: {}",
                    dependency.position,
                    dependency.name,
                    known.join(", ")
                ));
            }
        }
    }
    let fills = |other: &TransformFile| transform.changes.contains(&other.target);
    found.extend(transforms.iter().enumerate().filter(|(_, other)| fills(other)).map(|(index, _)| index));
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// For each node, a shortest path from itself back to itself, if there is one.
fn find_cycles(dependencies: &[Vec<usize>]) -> Vec<Option<Vec<usize>>> {
    (0..dependencies.len()).map(|node| find_path(dependencies, node, node)).collect()
}

/// A shortest path of at least one step.
fn find_path(dependencies: &[Vec<usize>], from: usize, to: usize) -> Option<Vec<usize>> {
    let mut came_from: Vec<Option<usize>> = vec![None; dependencies.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        for &next in &dependencies[node] {
            if came_from[next].is_some() {
                continue;
            }
            came_from[next] = Some(node);
            if next == to {
                return Some(path_to(&came_from, from, to));
            }
            queue.push_back(next);
        }
    }
    None
}

fn path_to(came_from: &[Option<usize>], from: usize, to: usize) -> Vec<usize> {
    let mut path = vec![to];
    let mut step = to;
    while let Some(previous) = came_from[step] {
        path.push(previous);
        step = previous;
        if step == from {
            break;
        }
    }
    path.reverse();
    path
}

/// Whether each node can be reached from one, in one step or more.
fn reachable_from(dependencies: &[Vec<usize>], node: usize) -> Vec<bool> {
    let mut reached = vec![false; dependencies.len()];
    let mut open = vec![node];
    while let Some(next) = open.pop() {
        for &dependency in &dependencies[next] {
            if !reached[dependency] {
                reached[dependency] = true;
                open.push(dependency);
            }
        }
    }
    reached
}

/// All nodes, every one after those that it depends on and that do not depend on it.
fn order(dependencies: &[Vec<usize>], names: &[&str]) -> Vec<usize> {
    let mut remaining: Vec<usize> = (0..dependencies.len()).collect();
    remaining.sort_by_key(|index| names[*index]);
    let reachable: Vec<Vec<bool>> = (0..names.len()).map(|node| reachable_from(dependencies, node)).collect();
    let mut order: Vec<usize> = Vec::with_capacity(remaining.len());
    while !remaining.is_empty() {
        // A cycle may have nodes whose own dependencies are all within it: what any of its nodes depends on comes first.
        let is_next = |index: &usize| {
            (0..names.len()).all(|other| {
                !reachable[*index][other] || order.contains(&other) || other == *index || reachable[other][*index]
            })
        };
        let position = remaining.iter().position(is_next).unwrap_or(0);
        order.push(remaining.remove(position));
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::file::parse;
    use super::*;

    fn transform(name: &str, header: &str) -> TransformFile {
        let text = format!("-- target: t.{name}\n-- every: 1 day\n{header}\nSELECT 1");
        parse(name, &format!("{name}.sql"), &text).unwrap()
    }

    fn names(transforms: &[TransformFile], graph: &Graph) -> Vec<String> {
        graph.order.iter().map(|index| transforms[*index].name.clone()).collect()
    }

    #[test]
    fn a_transform_runs_after_those_it_depends_on_and_those_whose_targets_it_reads() {
        let transforms = [
            transform("a", "-- depends: c"),
            transform("b", ""),
            transform("c", "-- changes: t.d\n-- key: k"),
            transform("d", ""),
        ];
        let graph = Graph::new(&transforms);
        assert_eq!(names(&transforms, &graph), ["b", "d", "c", "a"]);
        assert_eq!(graph.problems, [None, None, None, None]);
    }

    #[test]
    fn what_is_wrong_with_one_is_no_problem_of_the_others() {
        let transforms = [
            transform("a", "-- depends: b"),
            transform("b", "-- depends: c"),
            transform("c", "-- depends: a"),
            transform("d", "-- depends: a"),
            transform("e", "-- depends: missing"),
            transform("f", ""),
        ];
        let graph = Graph::new(&transforms);
        assert_eq!(graph.problems[0].as_deref(), Some("a.sql: depends on itself: a → b → c → a"));
        assert_eq!(graph.problems[2].as_deref(), Some("c.sql: depends on itself: c → a → b → c"));
        let missing = "e.sql:3:13: unknown transform `missing`; transforms: a, b, c, d, e, f";
        assert_eq!(graph.problems[4].as_deref(), Some(missing));
        assert_eq!((&graph.problems[3], &graph.problems[5]), (&None, &None));
    }

    #[test]
    fn two_transforms_do_not_fill_one_table() {
        let other = parse("z", "z.sql", "-- target: T.a\n-- every: 1 day\nSELECT 1").unwrap();
        let graph = Graph::new(&[transform("a", ""), other]);
        assert_eq!(graph.problems[0].as_deref(), Some("a.sql:1:12: t.a is also the target of transform z"));
        assert_eq!(graph.problems[1].as_deref(), Some("z.sql:1:12: t.a is also the target of transform a"));
    }

    /// Whether each node can be reached from each, in one step or more.
    fn reachable(dependencies: &[Vec<usize>]) -> Vec<Vec<bool>> {
        let count = dependencies.len();
        let mut reached = vec![vec![false; count]; count];
        for (from, next) in dependencies.iter().enumerate() {
            next.iter().for_each(|&to| reached[from][to] = true);
        }
        for middle in 0..count {
            for from in 0..count {
                for to in 0..count {
                    reached[from][to] |= reached[from][middle] && reached[middle][to];
                }
            }
        }
        reached
    }

    proptest! {
        #[test]
        fn every_node_comes_once_and_after_its_dependencies(
            edges in prop::collection::vec((0_usize..9, 0_usize..9), 0..24),
        ) {
            let mut dependencies = vec![Vec::new(); 9];
            edges.iter().for_each(|&(from, to)| dependencies[from].push(to));
            let names: Vec<String> = (0..9).map(|number| format!("n{}", (number * 5) % 9)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let order = order(&dependencies, &names);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..9).collect::<Vec<_>>());
            let reached = reachable(&dependencies);
            let position = |node: usize| order.iter().position(|other| *other == node).unwrap();
            for (from, cycle) in find_cycles(&dependencies).into_iter().enumerate() {
                prop_assert_eq!(cycle.is_some(), reached[from][from]);
                if let Some(cycle) = cycle {
                    prop_assert!(cycle.first() == Some(&from) && cycle.last() == Some(&from) && cycle.len() > 1);
                    prop_assert!(cycle.windows(2).all(|step| dependencies[step[0]].contains(&step[1])));
                }
                for (to, reached_from) in reached.iter().enumerate() {
                    // A cycle precedes what depends on it, and follows what it depends on.
                    if reached[from][to] && !reached_from[from] {
                        prop_assert!(position(to) < position(from), "{from} → {to}: {order:?}");
                    }
                }
            }
        }
    }
}
