
"use strict";
(function () {
  const at = (id) => document.getElementById(id);
  const facts = JSON.parse(at("facts").textContent);
  const PLANES = ["sagittal", "coronal", "axial"]; // of the axes x, y, z
  let nv, images, mask, classes, uncertainty, current;

  function still(reason) {
    at("why").textContent = reason + " Here are still pictures instead.";
    at("viewer").hidden = true;
    at("still").hidden = false;
  }

  function load(index, name) {
    const element = at("volume-" + index);
    const base64 = element.textContent;
    element.remove();
    return niivue.NVImage.loadFromBase64({ base64, name: name + ".nii.gz" });
  }

  function choose(index) {
    const image = images[index];
    current = index;
    nv.volumes[0] = image;
    nv.setVolume(image, 0);
    limits();
    place();
  }

  function limits() {
    const { low, high, black, white } = facts.sequences[current];
    const range = white - black;
    at("level").min = Math.max(low, black - range / 2);
    at("level").max = Math.min(high, white + range);
    at("width").min = range / 50;
    at("width").max = Math.min(high - low, 2 * range);
    follow();
  }

  // The sliders follow the image: it was changed by the right mouse button, or by another sequence.
  function follow() {
    const { cal_min, cal_max } = images[current];
    at("level").value = (cal_min + cal_max) / 2;
    at("width").value = cal_max - cal_min;
    at("window-values").textContent = short(cal_min) + " to " + short(cal_max);
  }

  function grey() {
    const level = Number(at("level").value), width = Number(at("width").value);
    images[current].cal_min = level - width / 2;
    images[current].cal_max = level + width / 2;
    nv.updateGLVolume();
    follow();
  }

  function first(image, sequence) {
    image.cal_min = sequence.black;
    image.cal_max = sequence.white;
  }

  function colours() {
    const part = (k) => [0, ...facts.classes.map((c) => c.colour[k])];
    const count = facts.classes.length + 1;
    mask.setColormapLabel({
      R: part(0), G: part(1), B: part(2), A: [0, ...Array(count - 1).fill(255)], I: [...Array(count).keys()],
    });
  }

  // Writes the classes that are switched on into the mask; of outlines only voxels beside one of another class.
  function paint() {
    const on = [false, ...facts.classes.map((_, i) => at("class-" + i).checked)];
    const outline = at("outline").checked;
    const [nx, ny, nz] = mask.hdr.dims.slice(1, 4);
    const steps = [1, nx, nx * ny];
    for (let z = 0, i = 0; z < nz; z++) {
      for (let y = 0; y < ny; y++) {
        for (let x = 0; x < nx; x++, i++) {
          const value = classes[i];
          let visible = on[value];
          if (visible && outline && x && y && z && x < nx - 1 && y < ny - 1 && z < nz - 1) {
            visible = steps.some((step) => classes[i - step] !== value || classes[i + step] !== value);
          }
          mask.img[i] = visible ? value : 0;
        }
      }
    }
    nv.updateGLVolume();
  }

  function short(value) {
    return Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  }

  function voxel() {
    const dims = images[0].hdr.dims;
    return [0, 1, 2].map((k) => {
      const index = Math.round(nv.scene.crosshairPos[k] * dims[k + 1] - 0.5);
      return Math.min(Math.max(index, 0), dims[k + 1] - 1);
    });
  }

  function place() {
    const [x, y, z] = voxel();
    const mm = nv.frac2mm(nv.scene.crosshairPos);
    const sides = ["LR", "PA", "IS"];
    const where = sides.map((letters, k) => letters[Number(mm[k] > 0)] + " " + Math.abs(mm[k]).toFixed(0));
    const rows = facts.sequences.map((s, i) => [s.name, short(images[i].getValue(x, y, z))]);
    if (mask) {
      const [, nx, ny] = mask.hdr.dims;
      const value = classes[x + nx * (y + ny * z)];
      rows.push(["mask", value ? facts.classes[value - 1].name : "no tumour"]);
    }
    if (uncertainty) rows.push(["uncertainty", uncertainty.getValue(x, y, z).toFixed(2)]);
    rows.push(["mm", where.join(", ")]);
    at("values").replaceChildren(...rows.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      return row;
    }));
    [x, y, z].forEach((value, k) => { at("slice-" + k).value = value; });
  }

  function go(axis, index) {
    nv.scene.crosshairPos[axis] = (index + 0.5) / images[0].hdr.dims[axis + 1];
    nv.drawScene();
    place();
  }

  function choice(type, name, id, checked, parts) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type, name, id, checked });
    label.append(input, ...parts);
    return [label, input];
  }

  function build() {
    facts.sequences.forEach((sequence, i) => {
      const [label, input] = choice("radio", "sequence", "sequence-" + i, i === 0, [sequence.name]);
      input.addEventListener("change", () => choose(i));
      at("sequences").append(label);
    });
    facts.classes.forEach((c, i) => {
      const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
      swatch.style.backgroundColor = "rgb(" + c.colour.join(",") + ")";
      const words = c.name + ", " + c.ml.toFixed(1) + " mL" + (c.guess ? " (a guess)" : "");
      const [label, input] = choice("checkbox", "class", "class-" + i, true, [swatch, words]);
      input.addEventListener("change", paint);
      at("classes").append(label);
    });
    at("mask-controls").hidden = !mask;
    at("uncertainty-controls").hidden = !uncertainty;
    at("unsure-key").style.backgroundImage = facts.unsure.gradient;
    [0, 1, 2].forEach((axis) => {
      at("slice-" + axis).max = images[0].hdr.dims[axis + 1] - 1;
      at("slice-" + axis).addEventListener("input", (event) => go(axis, Number(event.target.value)));
    });
    at("level").addEventListener("input", grey);
    at("width").addEventListener("input", grey);
    at("reset-window").addEventListener("click", () => {
      first(images[current], facts.sequences[current]);
      nv.updateGLVolume();
      follow();
    });
    at("mask-opacity").addEventListener("input", (event) => {
      nv.setOpacity(nv.volumes.indexOf(mask), Number(event.target.value));
    });
    at("outline").addEventListener("change", paint);
    const unsure = () => nv.setOpacity(
      nv.volumes.indexOf(uncertainty), at("uncertainty-on").checked ? Number(at("uncertainty-opacity").value) : 0);
    at("uncertainty-on").addEventListener("change", unsure);
    at("uncertainty-opacity").addEventListener("input", unsure);
    at("planes").addEventListener("change", (event) => nv.setSliceType(Number(event.target.value)));
    at("cut").addEventListener("input", (event) => {
      const share = Number(event.target.value);
      nv.setClipPlane([share ? 0.6 - share : 2, 180, 0]);
    });
  }

  async function start() {
    if (!document.createElement("canvas").getContext("webgl2")) {
      still("This browser offers no WebGL 2, which the viewer needs.");
      return;
    }
    at("viewer").hidden = false;
    nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 0.8, 0, 0.6], crosshairWidth: 0.6, crosshairWidthUnit: "mm",
      isRadiologicalConvention: true,
      sagittalNoseLeft: true, dragAndDropEnabled: false, dragMode: niivue.DRAG_MODE.windowing, logLevel: "error",
      multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS, show3Dcrosshair: true, isNearestInterpolation: true,
      showAllOrientationMarkers: true,
      loadingText: "",
    });
    await nv.attachToCanvas(at("canvas"));
    images = await Promise.all(facts.sequences.map((s) => load(s.volume, s.name)));
    images.forEach((image, i) => first(image, facts.sequences[i]));
    current = 0;
    if (facts.mask !== null) mask = await load(facts.mask, "mask");
    if (facts.uncertainty !== null) uncertainty = await load(facts.uncertainty, "uncertainty");
    build();
    nv.addVolume(images[current]);
    if (mask) {
      classes = mask.img.slice();
      colours();
      mask.opacity = Number(at("mask-opacity").value);
      nv.addVolume(mask);
    }
    if (uncertainty) {
      const part = (k) => facts.unsure.colours.map((c) => c[k]);
      nv.addColormap("unsure", {
        R: part(0), G: part(1), B: part(2), A: [0, 255, 255, 255, 255, 255], I: [0, 51, 102, 153, 204, 255],
      });
      uncertainty.colormap = "unsure"; // which sets the limits, too
      // Below 0.25 the image and the mask stay visible: NiiVue's colormapType 1.
      Object.assign(uncertainty, { cal_min: 0.25, cal_max: 1, colormapType: 1, opacity: 0 });
      nv.addVolume(uncertainty);
    }
    nv.setClipPlaneColor([0, 0, 0, 0]);
    nv.setSliceType(nv.sliceTypeMultiplanar);
    nv.scene.crosshairPos = facts.start.slice();
    nv.onLocationChange = place;
    nv.onIntensityChange = follow;
    nv.drawScene();
    limits();
    place();
    at("canvas").addEventListener("webglcontextlost", () => still("The graphics card gave up on the viewer."));
    at("still").hidden = true;
    document.documentElement.dataset.ready = "yes";
  }

  start().catch((error) => still("The viewer could not be started (" + error.message + ")."));
})();
