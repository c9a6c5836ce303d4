// Prints what dcmjs reads of DICOM files, one line of JSON for each: node dcmjs_read.cjs MODULE_FOLDER FILE...
const fs = require("fs");
const dcmjs = require(process.argv[2] + "/dcmjs");
const list = (value) => (value === undefined ? [] : Array.isArray(value) ? value : [value]);

const countNumbers = (item) =>
  list(item.ContentSequence).reduce((sum, child) => sum + (child.ValueType === "NUM" ? 1 : 0) + countNumbers(child), 0);

const countBits = (buffer) => {
  let bits = 0;
  for (const byte of new Uint8Array(buffer)) { for (let n = byte; n; n &= n - 1) { bits += 1; } }
  return bits;
};

for (const path of process.argv.slice(3)) {
  const bytes = fs.readFileSync(path);
  const file = dcmjs.data.DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const data = dcmjs.data.DicomMetaDictionary.naturalizeDataset(file.dict);
  const out = {
    uid: data.SOPInstanceUID,
    modality: data.Modality,
    frames: Number(data.NumberOfFrames || 0),
    labels: list(data.SegmentSequence).map((s) => s.SegmentLabel),
    rois: list(data.StructureSetROISequence).map((s) => s.ROIName),
    numbers: countNumbers(data),
  };
  if (data.SegmentationType === "BINARY") { out.voxels = countBits(list(data.PixelData)[0]); }
  if (data.FloatPixelData !== undefined) {
    const floats = new Float32Array(list(data.FloatPixelData)[0]);
    out.sum = floats.reduce((sum, value) => sum + value, 0);
  }
  console.log(JSON.stringify(out));
}
