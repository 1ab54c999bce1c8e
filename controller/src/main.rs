//! `autoresearch`: parse, configure, call.

fn main() -> std::process::ExitCode {
    controller::cli::main()
}
