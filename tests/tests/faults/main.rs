//! The fault matrix.

use e2e::faults::{
    campaign::{self, Model, Price},
    site::{Site, Wishes},
};

#[test]
fn nothing_happens() {
    let mut site = Site::new(&Wishes { backend: "native", ..Wishes::default() });
    let model = Model::start(None);
    let since = std::time::Instant::now();
    let ran = model.research(&site, "native").finish(&site.home, campaign::LONGEST);
    eprintln!("{:?}", since.elapsed());
    let found = campaign::check(&site, &model, &ran, Price::default());
    eprintln!("{found:#?}");
    site.assert_nothing_left();
}
