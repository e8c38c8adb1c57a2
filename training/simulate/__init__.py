"""Virtual stroke patients: one latent patient by seed, seen as non-contrast CT, CT perfusion and truth maps.

Start in `patient`, which is solved once; `render` and `dynamic` look at it on any slice geometry. Every figure made
with these patients is a simulated one: they rank methods under the physics written here, and nothing more.
"""
