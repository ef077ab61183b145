"""What is said about the figures of a report: a title, and what is seen and how it was computed."""

from __future__ import annotations

CAPTIONS = {
    "images": (
        "Phase and absorbance",
        "Phase and absorbance μt = −2 ln |O| of {names} at the measured energy nearest to {energy:.1f} "
        "eV, vacuum set to zero. One grey scale for all particles in either row; the arrows give the "
        "directions of x and y in the CXI frame.",
    ),
    "energy_series": (
        "Absorbance over the edge",
        "Absorbance of {names} below the edge, at the pre-edge peak, at the edge, at the white line and "
        "far above (the nearest measured energies), all on one grey scale.",
    ),
    "regions": (
        "Spectra of regions",
        "Mean spectra of regions of {width:.0f} × {width:.0f} nm² in {names} ({chosen}), marked on the "
        "absorbance: measured points and the fit of eq. (1), an edge step with pre-edge peak and white "
        "line. Curves are shifted against each other. ± is one standard deviation, from the residuals of "
        "the fit.{bulk}",
    ),
    "maps": (
        "Chemical maps",
        "{names}: edge energy b₂ (valence), pre-edge ratio PE/Δμt (site symmetry), Re[N_eff]/N_V "
        "(composition, on the wide scale of the paper and on a finer one) and areal density N_V of "
        "{element}. Each column has one colour scale for all particles; grey: not fitted.",
    ),
    "sigma_maps": (
        "Standard deviations of the maps",
        "{names}: one standard deviation of each of these maps, from the covariance of the fit. Each "
        "column has one colour scale for all particles; grey: not fitted.",
    ),
    "state_maps": (
        "Maps of the states",
        "States of the pixels: {k} clusters by k-means on b₂, PE/Δμt and Re[N_eff]/N_V over the pixels of"
        " all particles together. The legend gives each state's share of the atoms of the particle.",
    ),
    "states": (
        "Spectra and shares of the states",
        "Left: mean spectrum of each state over all particles, less its mean below the edge, over its "
        "edge jump. Right: share of the atoms in each state by preparation, weighted by N_V; error bars: "
        "one standard deviation of the mean over particles, of a single particle that of the assignment "
        "of its pixels.{bulk}",
    ),
    "histograms": (
        "Histograms of each particle",
        "Distribution of the three quantities over the atoms of {names}, coloured by state and stacked; "
        "atoms in percent of the particle's per bin.",
    ),
    "resolution": (
        "Ring correlation and transfer function",
        "Resolution of {names}: Fourier ring correlation of two halves of the scan with the ½-bit and "
        "1-bit thresholds, and phase-retrieval transfer function (PRTF) with its threshold 1/e, as far as"
        " they were determined. Dotted lines mark the crossings, the legend gives them as full periods.",
    ),
    "domains": (
        "Sizes of the domains",
        "Lengths of straight lines along rows and columns within one state; parts narrower than 90 nm "
        "count with the domain beside them. Left: chords that end at other states on both sides. Right: "
        "mean chord, free of the particle's outline (twice the length over the borders crossed), with the"
        " standard error over particles. Lengths below two resolution elements say little.",
    ),
    "densities": (
        "Densities, {group}",
        "Probability densities over the atoms of {names} (Gaussian kernels, pixels weighted by N_V). "
        "Above: each quantity, states stacked in their colours and their sum in black. Below: each two, "
        "the sum in grey (on a root scale) with each state's contour at half of its greatest density.",
    ),
    "scatter": (
        "Pixels by their three quantities, {group}",
        "Each pixel of {names} by edge energy, pre-edge ratio and Re[N_eff]/N_V, with colour and marker "
        "of its state; paler where N_V is low. At most 4000 pixels are drawn, chosen at random.",
    ),
    "state_count": (
        "The number of states",
        "Criteria for the number of states: elbow of the k-means cost, silhouette, Bayesian information "
        "criterion of a Gaussian mixture, gap statistic with its standard error, and agreement of "
        "partitions found in two halves of the pixels. None is reliable alone; this report uses {k}.",
    ),
}
