//! Packs a Hugging Face checkpoint: `cargo run --release -p r3mes-model --example pack -- DIR FILE`.

use std::path::Path;

use r3mes_model::{Checkpoint, pack};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, file] = arguments.as_slice() else {
        return Err("give the checkpoint's directory and the file to write".into());
    };
    let checkpoint = Checkpoint::open(Path::new(directory), None)?;
    let packed = pack(&checkpoint, Path::new(file))?;
    println!("{} {file}", packed.id());
    Ok(())
}
