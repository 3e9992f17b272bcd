//! What is done with live figures on a connection; written once, as `operations.rs` is.

use sqlx::{Error, query, query_as, raw_sql};

use super::{
    super::{
        rows::{FigureRow, Mark},
        sql,
    },
    BEGIN_WRITE, Connection,
};

/// Counts reports, each once for ever: writes `rows` if all of them are new, or what `others` makes of
/// those that are. Which are new, in the order of `marks`, which have no key twice.
///
/// One transaction: a report is counted and its figures are there, or neither.
pub(crate) async fn count(
    connection: &mut Connection,
    marks: &[Mark],
    rows: Vec<FigureRow>,
    others: impl FnOnce(&[bool]) -> Vec<FigureRow> + Send,
) -> Result<Vec<bool>, Error> {
    raw_sql(BEGIN_WRITE).execute(&mut *connection).await?;
    let mut new = Vec::with_capacity(marks.len());
    for (text, piece) in sql::PUT_MARKS.cut(marks) {
        let mut statement = query_as::<_, (String, String, String)>(text);
        for mark in piece {
            statement = statement
                .bind(mark.cluster.as_str())
                .bind(&*mark.router)
                .bind(mark.process.as_str())
                .bind(mark.at);
        }
        let moved: std::collections::HashSet<(String, String, String)> = statement
            .fetch_all(&mut *connection)
            .await?
            .into_iter()
            .collect();
        new.extend(piece.iter().map(|mark| {
            let key = (
                mark.cluster.to_string(),
                mark.router.clone(),
                mark.process.to_string(),
            );
            moved.contains(&key)
        }));
    }
    let rows = if new.iter().all(|new| *new) {
        rows
    } else {
        others(&new)
    };
    for row in rows {
        put(connection, &row).await?;
    }
    raw_sql("COMMIT").execute(&mut *connection).await?;
    Ok(new)
}

/// Writes one window.
pub(crate) async fn put(connection: &mut Connection, row: &FigureRow) -> Result<(), Error> {
    query(sql::PUT_FIGURES)
        .bind(row.cluster.as_str())
        .bind(row.step)
        .bind(row.at)
        .bind(&*row.run)
        .bind(row.version)
        .bind(&*row.body)
        .execute(connection)
        .await?;
    Ok(())
}

/// The windows of a cluster from one moment to before another: when, whose, and which version.
pub(crate) async fn index(
    connection: &mut Connection,
    cluster: &str,
    step: i64,
    from: i64,
    to: i64,
) -> Result<Vec<(i64, String, i64)>, Error> {
    query_as(sql::FIGURES_INDEX)
        .bind(cluster)
        .bind(step)
        .bind(from)
        .bind(to)
        .fetch_all(connection)
        .await
}

/// The same with their figures.
pub(crate) async fn windows(
    connection: &mut Connection,
    cluster: &str,
    step: i64,
    from: i64,
    to: i64,
) -> Result<Vec<(i64, String, i64, String)>, Error> {
    query_as(sql::FIGURES)
        .bind(cluster)
        .bind(step)
        .bind(from)
        .bind(to)
        .fetch_all(connection)
        .await
}

/// The clusters that have windows of a length, and the oldest of each.
pub(crate) async fn oldest(
    connection: &mut Connection,
    step: i64,
) -> Result<Vec<(String, i64)>, Error> {
    query_as(sql::FIGURES_OLDEST)
        .bind(step)
        .fetch_all(connection)
        .await
}

/// Removes windows of a length that began before a moment.
pub(crate) async fn remove(
    connection: &mut Connection,
    step: i64,
    before: i64,
) -> Result<(), Error> {
    query(sql::DROP_FIGURES)
        .bind(step)
        .bind(before)
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets router processes whose last window began before a moment.
pub(crate) async fn forget(connection: &mut Connection, before: i64) -> Result<(), Error> {
    query(sql::DROP_MARKS)
        .bind(before)
        .execute(connection)
        .await?;
    Ok(())
}
