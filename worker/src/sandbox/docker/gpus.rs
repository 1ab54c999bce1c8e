//! How a sandbox's GPUs are asked for. The Container Device Interface says in a file of the host what a GPU is made of,
//! and the engine does as it says; NVIDIA's older way is a hook that runs with the host's rights and can leave out, or
//! add, what nobody sees. So the first is taken where every GPU of the slot is in it.

use std::{fs, io::Read as _, path::Path};

use bollard::{
    ClientVersion,
    models::{DeviceRequest, SystemInfo},
};

use super::{Shared, words};

/// The first API that knows the driver "cdi" and says where its files are.
const CDI_API: (usize, usize) = (1, 44);
const KIND: &str = "nvidia.com/gpu";
/// A file for one GPU has some 20 KiB.
const SPECIFICATION_MAX: u64 = 4 << 20;

/// What the engine is asked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Road {
    /// The Container Device Interface.
    Cdi,
    /// The engine's own driver for NVIDIA.
    Nvidia,
}

/// Which road leads to these GPUs here. An engine that does not answer now will not create either.
pub(super) async fn road(shared: &Shared, uuids: &[String]) -> Road {
    if uuids.is_empty() {
        return Road::Nvidia;
    }
    let system = match shared.docker.info().await {
        Ok(system) => system,
        Err(error) => {
            tracing::warn!(error = words(&error), "the engine does not say whether it has CDI");
            return Road::Nvidia;
        }
    };
    let (version, uuids) = (shared.docker.client_version(), uuids.to_vec());
    let look = move || choose(version, &system, &uuids);
    let road = kit::task::blocking("look for CDI", look).await.unwrap_or(Road::Nvidia);
    tracing::debug!(?road, "GPUs are asked for");
    road
}

fn choose(version: ClientVersion, system: &SystemInfo, uuids: &[String]) -> Road {
    if (version.major_version, version.minor_version) < CDI_API {
        return Road::Nvidia;
    }
    // Engines from API 1.50 on have read the files themselves.
    let discovered: Vec<&str> =
        system.discovered_devices.iter().flatten().filter_map(|device| device.id.as_deref()).collect();
    let folders = system.cdi_spec_dirs.iter().flatten();
    let files: Vec<String> = folders.flat_map(|folder| specifications(Path::new(folder))).collect();
    let known = |uuid: &String| {
        discovered.contains(&name(uuid).as_str()) || files.iter().any(|file| file.contains(uuid.as_str()))
    };
    match (system.cdi_spec_dirs.as_deref(), uuids.iter().all(known)) {
        (Some([_, ..]), true) => Road::Cdi,
        _ => Road::Nvidia,
    }
}

/// The text of each specification of NVIDIA's in a folder. One that cannot be read names no GPU.
fn specifications(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &Path| path.extension().is_some_and(|kind| kind == "yaml" || kind == "json");
    let read = |path: &Path| {
        let mut text = String::new();
        fs::File::open(path)?.take(SPECIFICATION_MAX).read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    let texts = entries.filter(|path| is_one(path)).filter_map(|path| match read(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a specification of devices cannot be read");
            None
        }
    });
    texts.filter(|text| text.contains(KIND)).collect()
}

fn name(uuid: &str) -> String {
    format!("{KIND}={uuid}")
}

/// By UUID; a number would be another GPU after a restart.
pub(super) fn devices(road: Road, uuids: &[String]) -> Vec<DeviceRequest> {
    if uuids.is_empty() {
        return Vec::new();
    }
    vec![match road {
        Road::Cdi => DeviceRequest {
            driver: Some("cdi".to_owned()),
            count: Some(0),
            device_ids: Some(uuids.iter().map(|uuid| name(uuid)).collect()),
            capabilities: None,
            options: None,
        },
        // A count beside the names is an error. With the capabilities said, the image's own variables choose none.
        Road::Nvidia => DeviceRequest {
            driver: Some("nvidia".to_owned()),
            count: Some(0),
            device_ids: Some(uuids.to_vec()),
            capabilities: Some(vec![["gpu", "compute", "utility"].map(str::to_owned).to_vec()]),
            options: None,
        },
    }]
}

#[cfg(test)]
mod tests {
    use bollard::models::DeviceInfo;

    use super::*;

    const NEW: ClientVersion = ClientVersion { major_version: 1, minor_version: 44 };
    const OLD: ClientVersion = ClientVersion { major_version: 1, minor_version: 43 };

    #[test]
    fn the_interface_is_taken_where_it_names_every_gpu_of_the_slot() {
        let folder = tempfile::tempdir().unwrap();
        let system = SystemInfo {
            cdi_spec_dirs: Some(vec!["/no/such/folder".into(), folder.path().to_string_lossy().into_owned()]),
            ..SystemInfo::default()
        };
        let one = ["GPU-1".to_owned()];
        let both = ["GPU-1".to_owned(), "GPU-2".to_owned()];
        assert_eq!(choose(NEW, &system, &one), Road::Nvidia, "folders alone name no GPU");
        fs::write(folder.path().join("other.yaml"), "kind: vendor.com/net\nname: GPU-1\n").unwrap();
        assert_eq!(choose(NEW, &system, &one), Road::Nvidia, "another vendor's");
        fs::write(folder.path().join("nvidia.yaml"), "kind: nvidia.com/gpu\ndevices:\n- name: GPU-1\n")
            .unwrap();
        assert_eq!(choose(NEW, &system, &one), Road::Cdi);
        assert_eq!(choose(NEW, &system, &both), Road::Nvidia, "one of two");
        assert_eq!(choose(OLD, &system, &one), Road::Nvidia, "an engine that ignores the field");
        assert_eq!(choose(NEW, &SystemInfo::default(), &one), Road::Nvidia, "switched off");
        let device = DeviceInfo { source: Some("cdi".into()), id: Some("nvidia.com/gpu=GPU-2".into()) };
        let system = SystemInfo { discovered_devices: Some(vec![device]), ..system };
        assert_eq!(choose(NEW, &system, &both), Road::Cdi);
    }

    #[test]
    fn a_request_names_gpus_and_never_counts_them() {
        let uuids = ["GPU-1".to_owned(), "MIG-2".to_owned()];
        let [cdi] = &devices(Road::Cdi, &uuids)[..] else { panic!() };
        assert_eq!((cdi.driver.as_deref(), cdi.count), (Some("cdi"), Some(0)));
        let names = ["nvidia.com/gpu=GPU-1".to_owned(), "nvidia.com/gpu=MIG-2".to_owned()];
        assert_eq!(cdi.device_ids.as_deref(), Some(&names[..]));
        assert_eq!(cdi.capabilities, None);
        let [hook] = &devices(Road::Nvidia, &uuids)[..] else { panic!() };
        assert_eq!((hook.driver.as_deref(), hook.count), (Some("nvidia"), Some(0)));
        assert_eq!(hook.device_ids.as_deref(), Some(&uuids[..]));
        assert_eq!(hook.capabilities.as_ref().unwrap()[0], ["gpu", "compute", "utility"]);
        assert!(devices(Road::Cdi, &[]).is_empty());
    }
}
