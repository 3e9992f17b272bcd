//! Markdown tables, and the statistics in them.

/// A table that is printed as Markdown.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&text| text.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn print(&self) {
        println!("| {} |", self.head.join(" | "));
        println!("|{}", "---|".repeat(self.head.len()));
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
        println!();
    }
}

/// Median, least and most.
pub(crate) fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    let middle = if sorted.len().is_multiple_of(2) {
        f64::midpoint(at(last / 2), at(last / 2 + 1))
    } else {
        at(last / 2)
    };
    (middle, at(0), at(last))
}

/// Where a quarter, half and three quarters of them are below.
pub(crate) fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let quarter = |n: usize| sorted.get((last * n + 2) / 4).copied().unwrap_or(f64::NAN);
    [quarter(1), spread(values).0, quarter(3)]
}

/// What each of them is to the one of the same round: rounds that follow one another had the same machine.
pub(crate) fn ratios(own: &[f64], base: &[f64]) -> Vec<f64> {
    own.iter().zip(base).map(|(own, base)| own / base).collect()
}

/// `median (middle half)`.
pub(crate) fn middle(values: &[f64], digits: usize) -> String {
    let [low, median, high] = quartiles(values);
    format!("{median:.digits$} ({low:.digits$}…{high:.digits$})")
}

/// `median (least–most)`.
pub(crate) fn shown(values: &[f64], digits: usize) -> String {
    let (median, least, most) = spread(values);
    format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
}
