// The part of the engine that the page needs; esbuild leaves the rest out.
export {
    AppBase, AppOptions, Asset, CameraComponentSystem, Color, Entity, FILLMODE_FILL_WINDOW, GAMMA_SRGB,
    GSPLATDATA_LARGE, GSplatComponentSystem, GSplatHandler, Quat, RESOLUTION_AUTO, SHADERLANGUAGE_GLSL, ShaderChunks,
    TONEMAP_NONE, TextureHandler, Vec3, WebglGraphicsDevice, version
} from "playcanvas";
