//! GPUs through NVML, always by UUID: an index changes with a reboot or a failed card. NVML is loaded when it is
//! there; a machine without it has no GPU, and the reason is kept for `doctor`.
//!
//! A GPU in MIG mode is no device that a program could use: its instances are, each with a UUID of its own.

use std::{fmt, sync::Arc};

use nvml_wrapper::{Device, Nvml, error::NvmlError};

/// The driver's own name for it; the one without a version comes with development packages only.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// A GPU, or an instance of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// `GPU-…`, or `MIG-…` for an instance.
    pub uuid: String,
    /// Like "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// In bytes.
    pub memory_bytes: u64,
    /// Like "550.54.15".
    pub driver_version: String,
}

/// What a GPU does right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSample {
    /// Whose.
    pub uuid: String,
    /// Percent of the driver's last sample period (1/6 to 1 s) in which a kernel ran; `None` for an instance, for
    /// which the driver does not tell.
    pub utilisation_percent: Option<u32>,
    /// In use, in bytes, by whoever uses it.
    pub memory_bytes: u64,
}

/// The way to this machine's GPUs. A clone is the same.
#[derive(Clone)]
pub struct Gpus {
    nvml: Result<Arc<Nvml>, String>,
}

impl fmt::Debug for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpus").field("available", &self.nvml.is_ok()).finish()
    }
}

impl Gpus {
    /// Loads NVML, if it is there.
    #[must_use]
    pub fn open() -> Self {
        let mut reason = String::new();
        for library in LIBRARIES {
            match Nvml::builder().lib_path(library.as_ref()).init() {
                Ok(nvml) => return Self { nvml: Ok(Arc::new(nvml)) },
                // What the second name says is only that it is not there either.
                Err(error) if reason.is_empty() => reason = explain(&error),
                Err(_) => {}
            }
        }
        Self { nvml: Err(reason) }
    }

    /// Every GPU that a program can be given, and why there is none.
    #[must_use]
    pub fn list(&self) -> (Vec<Gpu>, Option<String>) {
        let nvml = match &self.nvml {
            Ok(nvml) => nvml,
            Err(reason) => return (Vec::new(), Some(reason.clone())),
        };
        match list(nvml) {
            Ok(found) if found.is_empty() => (found, Some("the NVIDIA driver knows of no GPU".to_owned())),
            Ok(found) => (found, None),
            Err(error) => (Vec::new(), Some(explain(&error))),
        }
    }

    /// What these GPUs do. One that cannot be read (it fell off the bus) is left out and logged.
    #[must_use]
    pub fn sample(&self, uuids: &[String]) -> Vec<GpuSample> {
        let Ok(nvml) = &self.nvml else { return Vec::new() };
        let sample = |uuid: &String| match sample(nvml, uuid) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::warn!(%uuid, %error, "a GPU cannot be read");
                None
            }
        };
        uuids.iter().filter_map(sample).collect()
    }

    /// The processes that compute on a GPU, by the host's pids. After a sandbox is gone there must be none: the
    /// driver's processes can be unkillable, and then GPU and slot are set aside (SANDBOXES.md R16).
    ///
    /// # Errors
    /// The driver's own word.
    pub fn processes(&self, uuid: &str) -> Result<Vec<u32>, String> {
        let nvml = self.nvml.as_ref().map_err(Clone::clone)?;
        let device = nvml.device_by_uuid(uuid).map_err(|error| explain(&error))?;
        let found = device.running_compute_processes().map_err(|error| explain(&error))?;
        Ok(found.into_iter().map(|process| process.pid).collect())
    }
}

fn list(nvml: &Nvml) -> Result<Vec<Gpu>, NvmlError> {
    let driver_version = nvml.sys_driver_version()?;
    let mut found = Vec::new();
    for index in 0..nvml.device_count()? {
        // One broken card must not hide the others.
        match nvml.device_by_index(index).and_then(|device| usable(&device, &driver_version)) {
            Ok(gpus) => found.extend(gpus),
            Err(error) => tracing::warn!(index, %error, "a GPU is left out"),
        }
    }
    Ok(found)
}

/// The device itself, or its instances in MIG mode.
fn usable(device: &Device<'_>, driver_version: &str) -> Result<Vec<Gpu>, NvmlError> {
    let describe = |device: &Device<'_>, name: String| -> Result<Gpu, NvmlError> {
        Ok(Gpu {
            uuid: device.uuid()?,
            name,
            memory_bytes: device.memory_info()?.total,
            driver_version: driver_version.to_owned(),
        })
    };
    // A card that cannot do MIG answers with an error: it is in no such mode.
    let mig = device.mig_mode().is_ok_and(|mode| mode.current != 0);
    if !mig {
        return Ok(vec![describe(device, device.name()?)?]);
    }
    let mut found = Vec::new();
    // The count is of places; one with no instance answers with an error.
    for index in 0..device.mig_device_count()? {
        if let Ok(instance) = device.mig_device_by_index(index) {
            found.push(describe(&instance, instance.name().or_else(|_| device.name())?)?);
        }
    }
    Ok(found)
}

fn sample(nvml: &Nvml, uuid: &str) -> Result<GpuSample, NvmlError> {
    let device = nvml.device_by_uuid(uuid)?;
    let utilisation_percent = match device.utilization_rates() {
        Ok(rates) => Some(rates.gpu),
        Err(NvmlError::NotSupported | NvmlError::InvalidArg) => None,
        Err(error) => return Err(error),
    };
    Ok(GpuSample { uuid: uuid.to_owned(), utilisation_percent, memory_bytes: device.memory_info()?.used })
}

fn explain(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) => "NVIDIA's driver is not installed (no libnvidia-ml.so.1)".to_owned(),
        NvmlError::DriverNotLoaded => {
            "NVIDIA's driver is installed and not loaded: `modprobe nvidia`".to_owned()
        }
        NvmlError::NoPermission => "this user may not open /dev/nvidiactl".to_owned(),
        other => format!("NVML: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_nvml_has_no_gpu_and_says_why() {
        let gpus = Gpus { nvml: Err(explain(&NvmlError::DriverNotLoaded)) };
        let (found, reason) = gpus.list();
        assert!(found.is_empty() && reason.unwrap().contains("modprobe nvidia"));
        assert!(gpus.sample(&["GPU-1".to_owned()]).is_empty());
        assert!(gpus.processes("GPU-1").is_err());
    }

    #[test]
    fn this_machine_answers_one_way_or_the_other() {
        let gpus = Gpus::open();
        let (found, reason) = gpus.list();
        assert_eq!(found.is_empty(), reason.is_some());
        let uuids: Vec<_> = found.iter().map(|gpu| gpu.uuid.clone()).collect();
        assert_eq!(gpus.sample(&uuids).len(), found.len());
    }
}
