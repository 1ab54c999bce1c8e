//! Asks a question from a program of one's own: `cargo run -p controller --example ask -- "…"`. The local worker is the
//! `autoresearch` program beside it (`cargo build -p controller`).

use std::io::Write as _;

use controller::AutoResearch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let question = std::env::args().nth(1).ok_or("a question is wanted")?;
    let research = AutoResearch::builder().llm("offline").gpu_budget_hours(8.0).max_iterations(20).build()?;
    let outcome = research.run(&question, None).await?;
    writeln!(std::io::stdout(), "{}", outcome.summary)?;
    Ok(())
}
