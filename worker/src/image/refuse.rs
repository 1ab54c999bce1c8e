//! What no image of a sandbox may have. The one place that says it: asked when an image is added, when it is found and
//! when a sandbox is made of it.

use bollard::models::ImageConfig;

/// Why an image cannot be a sandbox's, if so: a volume of its own is a writable disk of the host without a limit under
/// a read-only root (SANDBOXES.md R10), the loader's and NVIDIA's variables are read by privileged hooks of the host
/// (R14), and an order for later builds would run in ours.
pub(crate) fn refuse(config: &ImageConfig) -> Option<String> {
    let shown = |text: &str| kit::text::one_line(text, 80);
    if let Some(volume) = config.volumes.iter().flatten().next() {
        return Some(format!("declares the volume {}: remove VOLUME from its recipe", shown(volume)));
    }
    for variable in config.env.iter().flatten() {
        let name = variable.split('=').next().unwrap_or_default();
        if name.starts_with("LD_") || name.starts_with("NVIDIA_") {
            return Some(format!("sets the variable {}: remove it from its recipe", shown(name)));
        }
    }
    let order = config.on_build.iter().flatten().next();
    order.map(|order| {
        format!("has an order for builds on it, {}: remove ONBUILD from its recipe", shown(order))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_with_a_door_is_refused() {
        let env =
            |variable: &str| ImageConfig { env: Some(vec![variable.to_owned()]), ..ImageConfig::default() };
        assert_eq!(refuse(&ImageConfig::default()), None);
        for good in ["PATH=/bin", "PYTHON_LD_X=1", "LDX=1", "MY_NVIDIA_X=1"] {
            assert_eq!(refuse(&env(good)), None, "{good}");
        }
        for wrong in ["LD_PRELOAD=/x.so", "LD_LIBRARY_PATH=", "NVIDIA_VISIBLE_DEVICES=all", "LD_AUDIT"] {
            let reason = refuse(&env(wrong)).unwrap();
            assert!(reason.contains(wrong.split('=').next().unwrap()), "{reason}");
        }
        let volumes = ImageConfig { volumes: Some(vec!["/data".to_owned()]), ..ImageConfig::default() };
        assert!(refuse(&volumes).unwrap().contains("/data"));
        let orders = ImageConfig { on_build: Some(vec!["RUN x".to_owned()]), ..ImageConfig::default() };
        assert!(refuse(&orders).unwrap().contains("ONBUILD"));
    }
}
