// A mask is a list of operations in pixels of the picture. It can be drawn at any scale: small on the screen, and at
// the picture's own size when it is sent. Undo removes the last operation.

const STRIP_ROWS = 1024; // a mask is sent in strips, since phones limit the size of a canvas

function applyOperation(context, operation, width, height) {
  const { kind, points } = operation;
  context.globalCompositeOperation = operation.erase ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = "#fff";
  if (kind === "clear") {
    context.clearRect(0, 0, width, height);
  } else if (kind === "invert") {
    context.globalCompositeOperation = "xor";
    context.fillRect(0, 0, width, height);
  } else if (kind === "file") {
    context.imageSmoothingEnabled = false;
    context.drawImage(operation.image, 0, 0, width, height);
  } else if (kind === "rectangle") {
    const [left, top, right, bottom] = rectangleOf(points, width, height);
    context.fillRect(left, top, right - left, bottom - top);
  } else if (kind === "lasso") {
    context.beginPath();
    points.forEach(([x, y]) => context.lineTo(x, y));
    context.closePath();
    context.fill();
  } else {
    drawStroke(context, points, operation.size);
  }
}

function drawStroke(context, points, size) {
  context.lineWidth = size;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  if (points.length === 1) {
    context.arc(points[0][0], points[0][1], size / 2, 0, 2 * Math.PI);
    context.fill();
    return;
  }
  points.forEach(([x, y]) => context.lineTo(x, y));
  context.stroke();
}

function rectangleOf(points, width, height) {
  const [[x0, y0], [x1, y1]] = [points[0], points[points.length - 1]];
  const inside = (value, limit) => Math.min(Math.max(value, 0), limit);
  return [
    inside(Math.floor(Math.min(x0, x1)), width),
    inside(Math.floor(Math.min(y0, y1)), height),
    inside(Math.ceil(Math.max(x0, x1)), width),
    inside(Math.ceil(Math.max(y0, y1)), height),
  ];
}

// Returns the mask at the picture's size as data URLs of PNG files, white on black, from top to bottom.
function maskStrips(operations, width, height) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const strips = [];
  for (let top = 0; top < height; top += STRIP_ROWS) {
    canvas.width = width;
    canvas.height = Math.min(STRIP_ROWS, height - top);
    context.translate(0, -top);
    operations.forEach((operation) => applyOperation(context, operation, width, height));
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    strips.push(canvas.toDataURL("image/png"));
  }
  canvas.width = canvas.height = 0;
  return strips;
}
