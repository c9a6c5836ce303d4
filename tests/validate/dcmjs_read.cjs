// Prints what dcmjs reads of a SEG or SR, as JSON: node dcmjs_read.cjs MODULE_FOLDER FILE
const fs = require("fs");
const dcmjs = require(process.argv[2] + "/dcmjs");
const bytes = fs.readFileSync(process.argv[3]);
const file = dcmjs.data.DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const data = dcmjs.data.DicomMetaDictionary.naturalizeDataset(file.dict);
const list = (value) => (value === undefined ? [] : Array.isArray(value) ? value : [value]);
let numbers = 0;
const walk = (item) => list(item.ContentSequence).forEach((child) => { numbers += child.ValueType === "NUM" ? 1 : 0; walk(child); });
walk(data);
const out = { modality: data.Modality, frames: data.NumberOfFrames || 0, labels: list(data.SegmentSequence).map((s) => s.SegmentLabel), numbers };
if (data.Modality === "SEG") {
  const bits = new Uint8Array(list(data.PixelData)[0]);
  let voxels = 0;
  for (const byte of bits) { for (let n = byte; n; n &= n - 1) { voxels += 1; } }
  out.voxels = voxels;
}
console.log(JSON.stringify(out));
