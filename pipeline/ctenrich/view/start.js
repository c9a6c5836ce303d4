// Runs in OHIF's page, after its configuration. Once the CT is drawn it loads the SEG that the address names as
// `overlay` and lays it over the CT. OHIF then makes its viewports anew and forgets the slice that the address names as
// `initialSOPInstanceUID`, or that the reader went to: it is shown again, in reformatted planes `point` (mm, LPS), until the
// reader scrolls.
(function () {
  "use strict";
  const asked = new URLSearchParams(location.search);
  const overlay = asked.get("overlay");
  let instance = asked.get("initialSOPInstanceUID");
  const point = (asked.get("point") || "").split(",").map(Number);
  const STILL = 10000; // milliseconds after which OHIF will not make its viewports anew
  const limit = Date.now() + 300000;
  const elements = () => window.cornerstone?.getEnabledElements() ?? [];
  const hasImages = ({ viewport }) => (viewport.getImageIds?.() ?? []).length > 0;
  const isDrawn = (element) => element.viewport.viewportStatus === "rendered" && hasImages(element);

  async function layOver(seg) {
    const { hangingProtocolService, userAuthenticationService, viewportGridService } = window.services;
    await seg.load({ headers: userAuthenticationService.getAuthorizationHeader() });
    const current = elements()[0]?.viewport.getCurrentImageId?.()?.match(/\/instances\/([\d.]+)\//);
    if (current) instance = current[1]; // the reader may have scrolled while the SEG was read
    const shown = viewportGridService.getActiveViewportId();
    const viewportsToUpdate = hangingProtocolService.getViewportsRequireUpdate(shown, seg.displaySetInstanceUID);
    window.commandsManager.run("setDisplaySetsForViewports", { viewportsToUpdate });
  }

  // Whether the viewport had to be moved.
  function show(viewport) {
    if (viewport.type === "stack") {
      const index = viewport.getImageIds().findIndex((id) => id.includes(`/instances/${instance}/`));
      if (index < 0 || index === viewport.getCurrentImageIdIndex()) return false;
      viewport.setImageIdIndex(index);
      return true;
    }
    if (viewport.type !== "orthographic" || point.length !== 3 || !point.every(Number.isFinite)) return false;
    const { focalPoint, viewPlaneNormal } = viewport.getCamera();
    const distance = viewPlaneNormal.reduce((sum, n, axis) => sum + n * (point[axis] - focalPoint[axis]), 0);
    if (Math.abs(distance) < 1) return false;
    viewport.jumpToWorld(point);
    viewport.render();
    return true;
  }

  function keepShown(hasOverlay) {
    const { segmentationService } = window.services;
    const isOverlaid = ({ viewportId }) => segmentationService.getSegmentationRepresentations(viewportId).length;
    let moved = Date.now();
    const stop = () => clearInterval(keeping);
    const keeping = setInterval(() => {
      const shown = elements();
      if (Date.now() > limit) return stop();
      if (!shown.length || !shown.every(hasImages) || (hasOverlay && !shown.some(isOverlaid))) {
        moved = Date.now();
        return;
      }
      if (shown.map(({ viewport }) => show(viewport)).some(Boolean)) moved = Date.now();
      if (Date.now() - moved > STILL) stop();
    }, 50);
    for (const kind of ["wheel", "keydown", "pointerdown"]) addEventListener(kind, stop, { once: true, capture: true });
  }

  const starting = setInterval(async () => {
    if (Date.now() > limit) return clearInterval(starting);
    const seg = overlay && window.services?.displaySetService?.getDisplaySetsForSeries(overlay)?.[0];
    if (!elements().some(isDrawn) || !elements().every(isDrawn) || (overlay && !seg?.load)) return;
    clearInterval(starting);
    if (seg) await layOver(seg);
    keepShown(Boolean(seg));
  }, 50);
})();
