//! What a slot's GPUs are on the host: device nodes, their numbers, and the driver's own libraries. Everything is read
//! from the driver's files in /proc, because a number of a card changes with a reboot and a UUID does not.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Of a slot; empty where it has no GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GpuParts {
    /// Names below /dev.
    pub nodes: Vec<String>,
    /// Their numbers, like "c 195:0".
    pub numbers: Vec<String>,
    /// The driver's files: where each is seen inside, and where it is.
    pub files: Vec<(String, PathBuf)>,
}

const DRIVER: &str = "/proc/driver/nvidia/gpus";
/// Every GPU's.
const SHARED_NODES: [&str; 3] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"];
/// What computing needs, and what tells how busy a card is; nothing for pictures.
const LIBRARIES: [&str; 8] = [
    "libcuda.so.1",
    "libnvidia-ml.so.1",
    "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-nvvm.so.4",
    "libnvidia-nvvm70.so.4",
    "libnvidia-gpucomp.so",
    "libcudadebugger.so.1",
    "libnvidia-opencl.so.1",
];
/// Where hosts have them, the loader's order.
const FOLDERS: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib"];
#[cfg(target_arch = "aarch64")]
const INSIDE: &str = "/usr/lib/aarch64-linux-gnu";
/// Where the image's loader looks without being told.
#[cfg(not(target_arch = "aarch64"))]
const INSIDE: &str = "/usr/lib/x86_64-linux-gnu";

/// Finds what these GPUs need.
///
/// # Errors
/// Which GPU or file is missing.
pub(super) fn find(uuids: &[String]) -> Result<GpuParts, String> {
    let Some(first) = uuids.first() else { return Ok(GpuParts::default()) };
    if uuids.iter().any(|uuid| uuid.starts_with("MIG-")) {
        return Err(format!("{first}: instances of a divided GPU are for the docker backend only"));
    }
    let minors = minors(Path::new(DRIVER), uuids)?;
    let mut parts = GpuParts::default();
    for name in SHARED_NODES.into_iter().map(str::to_owned).chain(minors.iter().map(|m| format!("nvidia{m}")))
    {
        let path = Path::new("/dev").join(&name);
        // The tools' node is made when somebody first wants it.
        let Ok(node) = fs::metadata(&path) else {
            if name == "nvidia-uvm-tools" {
                continue;
            }
            return Err(format!("there is no {}: load the driver (nvidia-modprobe -u -c 0)", path.display()));
        };
        let number = node.rdev();
        parts.numbers.push(format!("c {}:{}", rustix::fs::major(number), rustix::fs::minor(number)));
        parts.nodes.push(name);
    }
    let folders = FOLDERS.map(Path::new);
    for library in LIBRARIES {
        if let Some(source) = folders.iter().find_map(|folder| library_in(folder, library)) {
            // A name with its version is what a library asks for that was given without.
            let name = if library.ends_with(".so") { file_name(&source) } else { library.to_owned() };
            parts.files.push((format!("{INSIDE}/{name}"), source));
        }
    }
    if parts.files.is_empty() {
        return Err(format!("the driver's libcuda.so.1 is in none of {}", FOLDERS.join(", ")));
    }
    Ok(parts)
}

/// The minor number of each.
fn minors(driver: &Path, uuids: &[String]) -> Result<Vec<u32>, String> {
    let cards = fs::read_dir(driver).map_err(|e| format!("{}: {e}: load the driver", driver.display()))?;
    let texts: Vec<String> =
        cards.flatten().filter_map(|card| fs::read_to_string(card.path().join("information")).ok()).collect();
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let minor = |uuid: &String| {
        let card = texts.iter().find(|text| value(text, "GPU UUID").as_ref() == Some(uuid));
        let number = card.and_then(|text| value(text, "Device Minor")).and_then(|number| number.parse().ok());
        number.ok_or_else(|| format!("the driver knows no GPU {uuid}"))
    };
    uuids.iter().map(minor).collect()
}

/// The file itself, behind its links; without a version in the name it is the first that begins so.
fn library_in(folder: &Path, name: &str) -> Option<PathBuf> {
    let exact = folder.join(name);
    if name.ends_with(".so") {
        let entries = fs::read_dir(folder).ok()?.flatten();
        let versioned =
            entries.map(|e| e.path()).find(|path| file_name(path).starts_with(&format!("{name}.")));
        return versioned?.canonicalize().ok();
    }
    exact.canonicalize().ok()
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_by_its_uuid_and_no_other_is_given() {
        let driver = tempfile::tempdir().unwrap();
        for (bus, uuid, minor) in [("0000:01:00.0", "GPU-a", 1), ("0000:02:00.0", "GPU-b", 0)] {
            fs::create_dir(driver.path().join(bus)).unwrap();
            let text = format!("Model: \t\t NVIDIA\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n");
            fs::write(driver.path().join(bus).join("information"), text).unwrap();
        }
        assert_eq!(minors(driver.path(), &["GPU-b".into()]), Ok(vec![0]));
        assert_eq!(minors(driver.path(), &["GPU-a".into(), "GPU-b".into()]), Ok(vec![1, 0]));
        assert!(minors(driver.path(), &["GPU-c".into()]).unwrap_err().contains("GPU-c"));
    }

    #[test]
    fn a_slot_without_a_gpu_gets_nothing_and_an_instance_is_refused() {
        assert_eq!(find(&[]), Ok(GpuParts::default()));
        assert!(find(&["MIG-1".into()]).unwrap_err().contains("docker"));
    }
}
