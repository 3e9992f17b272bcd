//! Copy: a request that plugins want copied is written down on its way, and sent once it has been
//! answered.

use super::prepare::render_head;
use crate::{
    exchange::Exchange,
    http1::render::line,
    mirror::{Original, draft::Draft},
    pipeline::{Connection, plan::Plan},
    plugin::mirror::HEADER,
    table::Table,
    worker::Worker,
};

/// Begins a copy of the request, if plugins want one.
pub(crate) fn begin(
    worker: &Worker,
    conn: &Connection,
    x: &mut Exchange,
    plan: &Plan<'_>,
    table: &Table,
) -> Option<Box<Draft>> {
    let mirror = plan.decision.mirror?;
    worker.mirrors.begin(mirror, table, x, |x, out| {
        let before = x.scratch.request.len();
        line(&mut x.scratch.request, HEADER.as_bytes(), b"1");
        // Lanes' lines are among those of the request: what they stand in for stays behind here too.
        let gone: [&[Box<[u8]>]; 2] = [&mirror.gone, plan.decision.request_gone[0]];
        render_head(out, worker, conn, x, gone, true);
        x.scratch.request.truncate(before);
    })
}

/// The request has been answered: its copies may go.
pub(crate) fn end(
    worker: &Worker,
    x: &mut Exchange,
    draft: Option<Box<Draft>>,
    original: Option<Original>,
) {
    if let Some(draft) = draft {
        worker.mirrors.end(*draft, x, original);
    }
}
