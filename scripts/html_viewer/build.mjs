// Bundles the engine into one script that defines `pc`: node build.mjs OUT.js
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const { version } = JSON.parse(readFileSync("node_modules/playcanvas/package.json", "utf8"));

// The page asks for WebGL2 alone, so the WebGPU shaders (a quarter of the bytes) become empty strings.
const withoutWebgpuShaders = {
    name: "without-webgpu-shaders",
    setup(builder) {
        builder.onLoad({ filter: /shader-lib\/wgsl\/chunks\/.*\.js$/ }, ({ path }) => {
            const exported = /export \{([^}]*)\}/.exec(readFileSync(path, "utf8"))[1];
            const names = exported.split(",").map((part) => part.trim().split(/\s+as\s+/));
            const lines = names.map(([own, outside]) =>
                outside === "default" ? 'export default "";' : `export const ${outside ?? own} = "";`);
            return { contents: lines.join("\n") };
        });
    }
};

await build({
    entryPoints: ["engine.js"],
    outfile: process.argv[2],
    bundle: true,
    minify: true,
    format: "iife",
    globalName: "pc",
    target: "es2022",
    supported: { "template-literal": false }, // shaders in one line each
    legalComments: "none", // the licence travels as a file of its own
    banner: { js: `/* PlayCanvas Engine ${version}, MIT licence, https://github.com/playcanvas/engine */` },
    plugins: [withoutWebgpuShaders]
});
