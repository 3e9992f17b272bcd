//! `cargo bench -p cardea-router --features bench --bench table`: what routing, picking and building
//! tables cost.

fn main() {
    cardea_router::bench::run();
}
