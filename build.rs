//! Takes the examples of the reference (`config/examples`) into the binary: a folder that is dropped there is one more.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let [root, out] =
        ["CARGO_MANIFEST_DIR", "OUT_DIR"].map(|name| PathBuf::from(env::var_os(name).unwrap_or_default()));
    let examples = root.join("config/examples");
    println!("cargo::rerun-if-changed={}", examples.display());

    let mut list = "&[\n".to_string();
    for folder in entries(&examples)?.into_iter().filter(|folder| folder.is_dir()) {
        // Writing to a string cannot fail.
        _ = writeln!(list, "    Example {{ verb: {:?}, files: &[", name(&folder));
        for path in entries(&folder)? {
            let (prefix, files) = match path.is_dir() {
                true => (format!("{}/", name(&path)), entries(&path)?),
                false => (String::new(), vec![path]),
            };
            for file in files.into_iter().filter(|file| file.is_file()) {
                _ = writeln!(list, "        ({:?}, include_str!({file:?})),", prefix.clone() + &name(&file));
            }
        }
        list += "    ] },\n";
    }
    fs::write(out.join("examples.rs"), list + "]\n")
}

/// What is in a folder, by name.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
