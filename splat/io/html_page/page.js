"use strict";
// The page around the engine: reads the splats that lie in it, draws them, and moves the camera.
//
// What follows # in the address is for links and tests, joined by &:
//   view=px,py,pz,tx,ty,tz,ux,uy,uz,fov   where the camera is, what it looks at, what is up; vertical degrees
//   background=black|grey|white           bare (no buttons)
// <html data-state> says "loading", "drawn" or "failed".
(() => {
const byId = (id) => document.getElementById(id);
const settings = JSON.parse(byId("settings").textContent);
const hash = new URLSearchParams(location.hash.slice(1));
const BACKGROUNDS = { black: 0, grey: 0.5, white: 1 };
const SETTLED_FRAMES = 5; // after the first sorted frame: colours are those of this view by then
const STEEPEST = 89 * Math.PI / 180;

function fail(message) {
    document.documentElement.dataset.state = "failed";
    byId("wait").hidden = true;
    byId("trouble").hidden = false;
    byId("trouble").textContent = message;
}

// --- the splats in the page ----------------------------------------------------------------------------------

const pause = () => new Promise((resolve) => setTimeout(resolve));

function progress(words, part) {
    byId("doing").textContent = words;
    byId("progress").value = part;
}

async function bytesInPage() {
    const text = byId("splats").textContent.trim();
    const bytes = new Uint8Array(Math.floor(text.length / 4) * 3 - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0));
    const step = 4 << 18;
    for (let start = 0; start < text.length; start += step) {
        const piece = atob(text.slice(start, start + step));
        const offset = start / 4 * 3;
        for (let i = 0; i < piece.length; i++) bytes[offset + i] = piece.charCodeAt(i);
        progress("Unpacking", Math.min(1, (start + step) / text.length));
        await pause();
    }
    byId("splats").remove(); // the text is no longer needed
    return bytes;
}

function load(app, bytes) {
    const contents = settings.file.endsWith(".sog") ? bytes.buffer : new Response(bytes); // as its parsers want it
    const asset = new pc.Asset(settings.file, "gsplat", { url: settings.file, filename: settings.file, contents });
    return new Promise((resolve, reject) => {
        asset.on("load", () => resolve(asset));
        asset.on("error", (problem) => reject(new Error(problem)));
        app.assets.add(asset);
        app.assets.load(asset);
    });
}

// --- drawing -------------------------------------------------------------------------------------------------

function startApp(canvas) {
    // Without smoothing of edges: a splat has none, and its cost is paid for every layer.
    const device = new pc.WebglGraphicsDevice(canvas, { alpha: false, antialias: false, powerPreference: "high-performance" });
    device.maxPixelRatio = Math.min(window.devicePixelRatio, 2);
    const options = new pc.AppOptions();
    options.graphicsDevice = device;
    options.componentSystems = [pc.CameraComponentSystem, pc.GSplatComponentSystem];
    options.resourceHandlers = [pc.TextureHandler, pc.GSplatHandler];
    const app = new pc.AppBase(canvas);
    app.init(options);
    app.setCanvasFillMode(pc.FILLMODE_FILL_WINDOW);
    app.setCanvasResolution(pc.RESOLUTION_AUTO);
    app.autoRender = false; // only what changes is drawn
    return app;
}

// What training drew: the whole Gaussian down to 1/255, where the engine ends at 2.83 standard deviations and takes the
// rim's height off; splats below a pixel too; colours for exactly this view; and the filter of the training. The engine
// computes in half pixels and adds its 0.3 there, which is a quarter of the usual filter, so pictures come out sharper.
function drawAsTrained(app) {
    const splats = app.scene.gsplat;
    splats.dataFormat = pc.GSPLATDATA_LARGE;
    splats.minPixelSize = 0;
    splats.colorUpdateAngle = 0;
    splats.antiAlias = settings.filter.compensates;
    const chunks = pc.ShaderChunks.get(app.graphicsDevice, pc.SHADERLANGUAGE_GLSL);
    const change = (name, before, after) => {
        const source = chunks.get(name);
        if (!source.includes(before)) throw new Error(`the renderer's ${name} is not as expected`);
        chunks.set(name, source.replaceAll(before, after));
    };
    change("gsplatCornerVS", " + 0.3", ` + ${(4 * settings.filter.variance_px).toFixed(4)}`);
    change("gsplatPS", "return (exp(x * -4.0) - EXP4) * INV_EXP4;", "return exp(x * -4.0);");
    change("gsplatPS", "if (A > 1.0)", "if (A > 1.4)");
    change("gsplatCommonVS", "min(1.0, sqrt(max(0.0, log(alpha / alphaClipValue))) * 0.5)",
        "sqrt(max(0.0, log(alpha / alphaClipValue))) * 0.5");
}

// --- the camera ----------------------------------------------------------------------------------------------

// A point to look at, and where the camera is from there: yaw around the up axis, pitch above the horizon, distance.
class Pose {
    constructor(view) {
        this.up = new pc.Vec3(view.up).normalize();
        const aside = Math.abs(this.up.x) < 0.9 ? new pc.Vec3(1, 0, 0) : new pc.Vec3(0, 0, 1);
        this.east = new pc.Vec3().cross(aside, this.up).normalize();
        this.north = new pc.Vec3().cross(this.up, this.east);
        this.target = new pc.Vec3(view.target);
        const offset = new pc.Vec3(view.position).sub(this.target);
        this.distance = Math.max(offset.length(), 1e-6);
        const height = Math.max(-1, Math.min(1, offset.dot(this.up) / this.distance));
        this.pitch = Math.max(-STEEPEST, Math.min(STEEPEST, Math.asin(height)));
        this.yaw = Math.atan2(offset.dot(this.north), offset.dot(this.east));
        this.exact = view; // drawn as given, tilted or straight down, until it is moved
    }

    outward() {
        const flat = Math.cos(this.pitch);
        const part = (axis, by) => axis.clone().mulScalar(by);
        return part(this.east, flat * Math.cos(this.yaw)).add(part(this.north, flat * Math.sin(this.yaw)))
            .add(part(this.up, Math.sin(this.pitch)));
    }

    position() {
        return this.outward().mulScalar(this.distance).add(this.target);
    }

    turn(yaw, pitch, mode) {
        const before = this.position();
        this.yaw += yaw;
        this.pitch = Math.max(-STEEPEST, Math.min(STEEPEST, this.pitch + pitch));
        if (mode === "fly") this.target.add(before.sub(this.position())); // the camera stays, its target moves
        this.exact = null;
    }

    // By parts of the distance: right, up, forward as the camera sees them.
    move(right, up, forward) {
        const inward = this.outward().mulScalar(-1);
        const side = new pc.Vec3().cross(inward, this.up).normalize();
        const over = new pc.Vec3().cross(side, inward);
        const step = side.mulScalar(right).add(over.mulScalar(up)).add(inward.mulScalar(forward));
        this.target.add(step.mulScalar(this.distance));
        this.exact = null;
    }

    zoom(factor) {
        this.distance = Math.max(1e-4 * settings.radius, Math.min(1e3 * settings.radius, this.distance * factor));
        this.exact = null;
    }

    place(camera) {
        if (this.exact) {
            camera.setPosition(new pc.Vec3(this.exact.position));
            camera.lookAt(new pc.Vec3(this.exact.target), new pc.Vec3(this.exact.up));
        } else {
            camera.setPosition(this.position());
            camera.lookAt(this.target, this.up);
        }
        const reach = camera.getPosition().distance(new pc.Vec3(settings.center)) + 100 * settings.radius;
        camera.camera.farClip = reach;
        camera.camera.nearClip = reach * 1e-5;
    }
}

function firstView() {
    const numbers = (hash.get("view") ?? "").split(",").map(Number);
    if (numbers.length !== 10 || !numbers.every(Number.isFinite)) return settings.view;
    const at = (start) => numbers.slice(start, start + 3);
    return { position: at(0), target: at(3), up: at(6), fov: numbers[9] };
}

// --- mouse, fingers, keys ------------------------------------------------------------------------------------

function listenToPointers(canvas, pose, mode, changed) {
    const held = new Map();
    const spread = () => {
        const [a, b] = [...held.values()];
        return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, size: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y)) };
    };
    // A drag over the height of the window turns by half a circle, or moves by what stands at the target's distance.
    const sideways = (dx, dy) => {
        const size = 2 * Math.tan(firstView().fov * Math.PI / 360) / canvas.clientHeight;
        pose().move(-dx * size, dy * size, 0);
    };
    canvas.addEventListener("pointerdown", (event) => {
        canvas.focus();
        canvas.setPointerCapture(event.pointerId);
        held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
        const last = held.get(event.pointerId);
        if (!last) return;
        const [dx, dy] = [event.clientX - last.x, event.clientY - last.y];
        const before = held.size === 2 ? spread() : null;
        Object.assign(last, { x: event.clientX, y: event.clientY });
        if (before) {
            const after = spread();
            sideways(after.x - before.x, after.y - before.y);
            pose().zoom(before.size / after.size);
        } else if (held.size === 1 && (event.shiftKey || event.buttons & 6)) {
            sideways(dx, dy);
        } else if (held.size === 1) {
            const turn = Math.PI / canvas.clientHeight * (mode() === "fly" ? -0.5 : 1);
            pose().turn(-dx * turn, dy * turn, mode());
        }
        changed();
    });
    for (const name of ["pointerup", "pointercancel"]) {
        canvas.addEventListener(name, (event) => held.delete(event.pointerId));
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        const lines = event.deltaY * (event.deltaMode === 1 ? 30 : event.deltaMode === 2 ? 300 : 1);
        if (mode() === "fly") pose().move(0, 0, -lines * 0.001);
        else pose().zoom(Math.exp(lines * 0.001));
        changed();
    }, { passive: false });
}

function listenToKeys(pose, mode, actions) {
    const down = new Set();
    window.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        down.add(event.code);
        if (event.code.startsWith("Arrow")) event.preventDefault();
        if (!event.repeat) actions[event.code]?.();
    });
    window.addEventListener("keyup", (event) => down.delete(event.code));
    window.addEventListener("blur", () => down.clear());
    const axis = (plus, minus) => (down.has(plus) ? 1 : 0) - (down.has(minus) ? 1 : 0);
    return (seconds) => {
        const speed = seconds * (down.has("ShiftLeft") || down.has("ShiftRight") ? 3 : 0.7);
        const [right, up, forward] = [axis("KeyD", "KeyA"), axis("KeyE", "KeyQ"), axis("KeyW", "KeyS")];
        const [yaw, pitch] = [axis("ArrowRight", "ArrowLeft"), axis("ArrowUp", "ArrowDown")];
        const sense = mode() === "fly" ? -1 : 1;
        if (right || up || forward) pose().move(right * speed, up * speed, forward * speed);
        if (yaw || pitch) pose().turn(yaw * seconds * sense, pitch * seconds * sense, mode());
        return Boolean(right || up || forward || yaw || pitch);
    };
}

function listFacts() {
    for (const [name, value] of settings.facts) {
        const row = byId("rows").insertRow();
        row.insertCell().textContent = name;
        row.insertCell().textContent = value;
    }
}

// --- everything together -------------------------------------------------------------------------------------

function addControls(app, camera) {
    let [pose, mode] = [new Pose(firstView()), "orbit"];
    let background = hash.get("background") in BACKGROUNDS ? hash.get("background") : "black";
    const changed = () => {
        pose.place(camera);
        app.renderNextFrame = true;
    };
    const paint = () => {
        const shade = BACKGROUNDS[background];
        camera.camera.clearColor = new pc.Color(shade, shade, shade);
        app.renderNextFrame = true;
    };
    const actions = {
        KeyR: () => { pose = new Pose(firstView()); changed(); },
        KeyF: () => {
            mode = mode === "orbit" ? "fly" : "orbit";
            byId("mode").textContent = mode === "orbit" ? "Orbit" : "Fly";
        },
        KeyB: () => {
            const names = Object.keys(BACKGROUNDS);
            background = names[(names.indexOf(background) + 1) % names.length];
            paint();
        },
        KeyI: () => {
            byId("facts").hidden = !byId("facts").hidden;
            byId("about").setAttribute("aria-expanded", String(!byId("facts").hidden));
        },
        KeyH: () => document.body.classList.toggle("bare")
    };
    for (const [id, key] of [["reset", "KeyR"], ["mode", "KeyF"], ["background", "KeyB"], ["about", "KeyI"]]) {
        byId(id).addEventListener("click", actions[key]);
    }
    listenToPointers(app.graphicsDevice.canvas, () => pose, () => mode, changed);
    const heldKeys = listenToKeys(() => pose, () => mode, actions);
    app.on("update", (seconds) => { if (heldKeys(seconds)) changed(); });
    window.addEventListener("resize", () => { app.resizeCanvas(); changed(); });
    paint();
    changed();
}

function watchFrames(app) {
    const root = document.documentElement.dataset;
    let settled = -1;
    app.systems.gsplat.on("frame:request", () => { app.renderNextFrame = true; }); // a sorted order has arrived
    app.systems.gsplat.on("frame:ready", (camera, layer, ready, loading) => {
        settled = ready && loading === 0 ? settled + 1 : -1;
        if (root.state === "loading" && settled >= SETTLED_FRAMES) {
            root.state = "drawn";
            byId("wait").hidden = true;
        }
    });
    app.on("frameend", () => { if (root.state === "loading") app.renderNextFrame = true; });
}

async function main() {
    document.body.classList.toggle("bare", hash.has("bare"));
    listFacts();
    const canvas = byId("view");
    if (!document.createElement("canvas").getContext("webgl2")) {
        return fail("This page needs WebGL 2, which this browser does not offer or which is switched off in it.");
    }
    const app = startApp(canvas);
    drawAsTrained(app);
    const bytes = await bytesInPage();
    progress("Decoding", 1);
    await pause();
    const asset = await load(app, bytes);
    const camera = new pc.Entity("camera");
    // A first view that was asked for keeps its height; the one that shows all keeps its narrower side.
    const horizontalFov = !hash.has("view") && window.innerWidth < window.innerHeight;
    camera.addComponent("camera", {
        fov: firstView().fov, horizontalFov, toneMapping: pc.TONEMAP_NONE, gammaCorrection: pc.GAMMA_SRGB
    });
    app.root.addChild(camera);
    const splats = new pc.Entity("splats");
    splats.addComponent("gsplat", { asset });
    app.root.addChild(splats);
    addControls(app, camera);
    watchFrames(app);
    app.start();
}

main().catch((problem) => fail(`The splats could not be shown: ${problem?.message ?? problem}`));
})();
