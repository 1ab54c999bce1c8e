//! Images of the user's over the real engine. Each test makes its own, marked with a label of its own, and removes
//! what was made of them also where it fails.

use std::collections::HashMap;

use bollard::{
    body_full,
    query_parameters::{
        BuildImageOptionsBuilder, CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions,
    },
};
use futures_util::StreamExt as _;

use super::{tests::engine, *};

/// On every image that a test makes; what is derived from it has it too.
const MARK: &str = "autoresearch.test";

#[derive(Clone)]
struct Scene {
    docker: Docker,
    mark: String,
    data: PathBuf,
}

impl Scene {
    fn images(&self) -> Images {
        let cache = kit::folder::cache().unwrap();
        Images::of_worker(self.docker.clone(), cache, &self.data, CancellationToken::new())
    }

    fn reference(&self, name: &str) -> String {
        format!("ar-test-{}:{name}", self.mark)
    }

    /// Files of nothing, with what a Dockerfile would say.
    async fn import(&self, name: &str, changes: &[&str]) -> String {
        let empty = tar::Builder::new(Vec::new()).into_inner().unwrap();
        let mut changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        changes.push(format!("LABEL {MARK}={}", self.mark));
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(&format!("ar-test-{}", self.mark))
            .tag(name)
            .changes(changes)
            .build();
        let mut answers = self.docker.create_image(Some(options), Some(body_full(empty.into())), None);
        while let Some(answer) = answers.next().await {
            answer.unwrap();
        }
        self.reference(name)
    }

    /// On `lite`.
    async fn build(&self, name: &str, lines: &str) -> String {
        let lite = self.images().prepare("lite", mpsc::channel(1).0).await.unwrap();
        let text = format!("FROM {}\nLABEL {MARK}={}\n{lines}\n", lite.id, self.mark);
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "Dockerfile", text.as_bytes()).unwrap();
        let reference = self.reference(name);
        let options = BuildImageOptionsBuilder::new().t(&reference).rm(true).forcerm(true).build();
        let context = body_full(archive.into_inner().unwrap().into());
        let mut answers = self.docker.build_image(options, None, Some(context));
        while let Some(answer) = answers.next().await {
            answer.unwrap();
        }
        reference
    }

    async fn add(&self, name: &str, reference: &str) -> Result<Image, ImageError> {
        self.images().add(name, reference, "of a test", mpsc::channel(1).0).await
    }

    async fn clean(&self) {
        let filters = HashMap::from([("label", vec![format!("{MARK}={}", self.mark)])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        // What is made of another goes first: newest first.
        let mut all = self.docker.list_images(Some(options)).await.unwrap();
        all.sort_by_key(|image| std::cmp::Reverse(image.created));
        for image in all {
            for name in image.repo_tags.iter().chain([&image.id]) {
                let removed = self.docker.remove_image(name, None::<RemoveImageOptions>, None).await;
                if let Err(error) = removed.map_err(|e| e.to_string())
                    && !error.contains("404")
                    && !error.contains("No such image")
                    && !error.contains("not found")
                {
                    println!("{name}: {error}");
                }
            }
        }
    }
}

async fn with_scene<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Scene) -> F) {
    let Some(docker) = engine().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let mark = kit::id::new_uuid().simple().to_string();
    let scene = Scene { docker, mark, data: folder.path().join("data") };
    let done = kit::task::spawn("test", test(scene.clone())).await.unwrap();
    scene.clean().await;
    assert!(done.is_some(), "it failed: see above");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_would_weaken_a_sandbox_cannot_be_added() {
    with_scene(async |scene: Scene| {
        for (name, changes, word) in [
            ("volume", "VOLUME /data", "/data"),
            ("preload", "ENV LD_PRELOAD=/x.so", "LD_PRELOAD"),
            ("gpus", "ENV NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES"),
            ("orders", "ONBUILD VOLUME /data", "ONBUILD"),
            ("bare", "ENV A=1", "/usr/bin/python3"),
        ] {
            let reference = scene.import(name, &[changes]).await;
            let error = scene.add("mine", &reference).await.unwrap_err();
            assert!(matches!(error, ImageError::Unfit { .. }), "{error:?}");
            assert!(error.to_string().contains(word) && error.to_string().contains(&reference), "{error}");
        }
        // By an order of its own the derived image would have the volume.
        let error = scene.add("mine", "no/such/image-of-a-test").await.unwrap_err();
        assert!(matches!(error, ImageError::NotThere { .. }), "{error:?}");
        let error = scene.add("lite", &scene.reference("bare")).await.unwrap_err();
        assert!(error.to_string().contains("`lite`"), "{error}");
        let error = scene.add("Mine", &scene.reference("bare")).await.unwrap_err();
        assert!(error.to_string().contains("name"), "{error}");
        assert!(scene.images().find("mine").await.unwrap_err().to_string().contains("lite, torch"));
        assert_eq!(scene.images().list().await.len(), RECIPES.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_image_is_what_it_was_and_not_what_its_tag_is_put_on() {
    with_scene(async |scene: Scene| {
        let reference = scene.build("good", "ENV MINE=1\nUSER 1234\nWORKDIR /opt").await;
        let image = scene.add("mine", &reference).await.unwrap();
        assert_eq!(scene.add("mine", &reference).await.unwrap(), image, "twice is once");
        // Another worker's start reads the same list.
        let images = scene.images();
        assert_eq!(images.find("mine").await.unwrap().as_ref(), Some(&image));
        let listed = images.list().await;
        assert_eq!(listed[0].name, "mine");
        assert_eq!((listed[0].description.as_str(), listed[0].image.as_ref()), ("of a test", Some(&image)));
        assert_eq!(listed.len(), RECIPES.len() + 1);

        // The tag goes elsewhere, to something that would be refused.
        let other = scene.import("good", &["VOLUME /data"]).await;
        assert_eq!(other, reference);
        assert_eq!(scene.images().prepare("mine", mpsc::channel(1).0).await.unwrap(), image);
        assert!(matches!(scene.add("mine", &other).await, Err(ImageError::Unfit { .. })));
        let changed = scene.build("changed", "ENV MINE=2").await;
        let taken = scene.add("mine", &changed).await.unwrap_err();
        assert!(matches!(&taken, ImageError::Taken { reference: r, .. } if *r == reference), "{taken}");

        // The engine loses all of it: it is said, and by name.
        for name in [&image.id, "autoresearch/none"] {
            scene.docker.remove_image(name, None::<RemoveImageOptions>, None).await.ok();
        }
        assert_eq!(images.find("mine").await.unwrap(), None);
        let gone = images.prepare("mine", mpsc::channel(1).0).await.unwrap_err();
        let text = gone.to_string();
        assert!(matches!(gone, ImageError::Gone { .. }), "{gone:?}");
        assert!(text.contains(&reference) && text.contains("image add mine"), "{text}");

        images.remove("mine").unwrap();
        assert!(matches!(images.find("mine").await, Err(ImageError::Unknown { .. })));
        assert!(matches!(images.remove("mine"), Err(ImageError::Unknown { .. })));
        assert!(images.remove("torch").unwrap_err().to_string().contains("torch"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_name_stands_for_is_pruned_and_what_a_container_is_made_of_is_not() {
    with_scene(async |scene: Scene| {
        let reference = scene.build("good", "ENV MINE=3").await;
        let image = scene.add("mine", &reference).await.unwrap();
        // Only what this test made: others use this engine too.
        let label = format!("{MARK}={}", scene.mark);
        let images = scene.images();
        assert_eq!(images.prune_those(&label).await.unwrap(), [], "it is on the list");
        images.remove("mine").unwrap();
        let body = bollard::models::ContainerCreateBody {
            image: Some(image.id.clone()),
            cmd: Some(vec!["/bin/true".to_owned()]),
            ..bollard::models::ContainerCreateBody::default()
        };
        let options = None::<bollard::query_parameters::CreateContainerOptions>;
        let container = scene.docker.create_container(options, body).await.unwrap().id;
        assert_eq!(images.prune_those(&label).await.unwrap(), [], "a container is made of it");
        let options = None::<bollard::query_parameters::RemoveContainerOptions>;
        scene.docker.remove_container(&container, options).await.unwrap();
        let pruned = images.prune_those(&label).await.unwrap();
        assert_eq!(pruned.len(), 1);
        assert!(pruned[0].name.starts_with("autoresearch/added:"), "{pruned:?}");
        assert_eq!(pruned[0].size_bytes, image.size_bytes);
        // The user's own image stays.
        assert!(scene.docker.inspect_image(&reference).await.is_ok());
    })
    .await;
}
