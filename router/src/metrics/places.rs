//! Where a worker finds its series: by the route's number alone, so that what a request will count in can be
//! fetched as soon as the number is known, with nothing to be looked up in between.

use std::sync::Arc;

use cardea_registry_api::Name;

use super::{
    Counter, RequestLabels, RouteLabels, WorkerShare, lock,
    series::{Few, RouteSeries},
    tally::{Tally, Told},
};

/// How many series lie side by side: 40 KiB. There is a bit of a `u32` for each.
const BLOCK: usize = 32;

/// A worker's series, and what few of them have besides.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By number and [`BLOCK`].
    blocks: Vec<Block>,
    beyond: Vec<Option<Box<Beyond>>>,
}

/// Series of numbers that follow each other.
#[derive(Debug, Default)]
struct Block {
    /// None, until one of them is open.
    series: &'static [RouteSeries],
    /// A bit for each that is open: others know of it.
    open: u32,
}

/// What few series have.
#[derive(Debug, Default)]
struct Beyond {
    requests: Few<RequestLabels>,
    groups: Vec<(Name, &'static Tally)>,
}

/// The first place is of what no route took.
fn place(number: Option<u32>) -> usize {
    number.map_or(0, |number| number as usize + 1)
}

impl Places {
    /// The series of the route with this number, or of what no route took; none: it is not open.
    pub(super) fn get(&self, number: Option<u32>) -> Option<&'static RouteSeries> {
        let at = place(number);
        let block = self.blocks.get(at / BLOCK)?;
        let at = at % BLOCK;
        (block.open & 1 << at != 0).then(|| &block.series[at])
    }

    /// Opens a series, with nothing counted; it stays, and `share` tells of it.
    pub(super) fn open(
        &mut self,
        of: Option<RouteLabels<'_>>,
        share: &WorkerShare,
    ) -> &'static RouteSeries {
        let at = place(of.map(|of| of.index));
        if self.blocks.len() <= at / BLOCK {
            self.blocks.resize_with(at / BLOCK + 1, Block::default);
        }
        let block = &mut self.blocks[at / BLOCK];
        if block.series.is_empty() {
            block.series = Vec::leak((0..BLOCK).map(|_| RouteSeries::default()).collect());
        }
        block.open |= 1 << (at % BLOCK);
        let series = &block.series[at % BLOCK];
        let names = of.map(|of| [of.route, of.service].map(Name::clone));
        lock(&share.tallies).push(Told::new(of, None, &series.tally));
        lock(&share.series).push((names, series));
        series
    }

    /// What is counted for live figures of those that a plugin sent to a group.
    pub(super) fn group(
        &mut self,
        of: RouteLabels<'_>,
        group: &Name,
        share: &WorkerShare,
    ) -> &'static Tally {
        let groups = &mut self.beyond(Some(of.index)).groups;
        if let Some((_, tally)) = groups.iter().find(|(known, _)| known == group) {
            return tally;
        }
        let tally = Box::leak(Box::default());
        groups.push((group.clone(), tally));
        lock(&share.tallies).push(Told::new(Some(of), Some(group), tally));
        tally
    }

    /// Counts a request of a kind that the series has no place of its own for.
    pub(super) fn count_unusual(
        &mut self,
        number: Option<u32>,
        series: &RouteSeries,
        labels: RequestLabels,
    ) {
        let others = &mut self.beyond(number).requests;
        if let Some((_, counter)) = others.iter().find(|(known, _)| *known == labels) {
            counter.add(1);
            return;
        }
        let counter = Arc::new(Counter::default());
        counter.add(1);
        lock(&series.others).push((labels, Arc::clone(&counter)));
        others.push((labels, counter));
    }

    fn beyond(&mut self, number: Option<u32>) -> &mut Beyond {
        let at = place(number);
        if self.beyond.len() <= at {
            self.beyond.resize_with(at + 1, || None);
        }
        self.beyond[at].get_or_insert_default()
    }
}
