// A photograph from the camera.

/** Show the camera until a photograph is taken; returns its PNG, or null if it is cancelled. */
export async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Error("A browser gives the camera to pages of https or localhost only.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1280 } },
    });
  } catch (error) {
    throw new Error(`The camera cannot be used (${error.name}). Choose an image instead.`);
  }
  const [viewer, video] = ["viewer", "video"].map((id) => document.getElementById(id));
  video.srcObject = stream;
  viewer.returnValue = "";
  viewer.showModal();
  document.getElementById("take").onclick = () => viewer.close("take");
  document.getElementById("close").onclick = () => viewer.close();
  const closed = new Promise((resolve) => (viewer.onclose = resolve));
  try {
    video.play().catch(() => {}); // it ends early where the camera is closed at once
    await closed;
    return viewer.returnValue === "take" ? await snapshot(video) : null;
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  }
}

function snapshot(video) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
